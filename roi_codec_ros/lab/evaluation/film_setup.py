# SPDX-License-Identifier: Apache-2.0
"""What an evaluation on films is run with: clips, codecs, detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from roi_codec_ros.codec.models import load_model
from roi_codec_ros.lab.evaluation.av_codecs import require_av
from roi_codec_ros.lab.evaluation.film_baselines import parse_film_baselines
from roi_codec_ros.lab.evaluation.film_codecs import ModelFilm
from roi_codec_ros.lab.evaluation.film_evaluation import FilmBench, Row
from roi_codec_ros.lab.evaluation.film_frames import Clip
from roi_codec_ros.lab.evaluation.film_protocols import FilmCodec
from roi_codec_ros.lab.evaluation.judges import Judges


@dataclass(frozen=True)
class FilmSetup:
    """Codecs, detectors and settings, as of `setup.Setup` where they have the same name.

    hide_memory_s, persons_every: of models that code blocks, as cameras run them. predict: also
    measure these with temporal blocks. keyframe_s: of the baselines. yunet: its file, for those
    that blur faces. judge_every: search for persons and faces in every N-th frame.
    """

    judges: Judges
    models: Sequence[str]
    qualities: Sequence[float]
    baselines: Sequence[str]
    hide_memory_s: float
    persons_every: int
    predict: bool
    keyframe_s: float
    yunet: str | None
    judge_every: int

    def codecs(self) -> list[FilmCodec]:
        """Models first, then baselines. Raises RoiCodecError."""
        baselines = parse_film_baselines(
            self.baselines, keyframe_s=self.keyframe_s, yunet=self.yunet
        )
        if baselines:
            require_av()
        return [
            *(
                ModelFilm(
                    model,
                    quality,
                    self.hide_memory_s if model.codes_blocks else 0.0,
                    self.persons_every,
                    self.judges.threads or 1,
                    self.judges.server_backend,
                    predict,
                )
                for model in [load_model(name) for name in self.models]
                for quality in self.qualities
                for predict in ((False, True) if self.predict and model.codes_blocks else (False,))
            ),
            *baselines,
        ]

    def steps(self, clips: Sequence[Clip], codecs: Sequence[FilmCodec]) -> int:
        """How often the rows of all clips call on_frame."""
        judged = sum(-(-len(clip.images) // self.judge_every) for clip in clips)
        return judged * (1 + len(codecs))

    def bench(self, on_frame: Callable[[], None]) -> FilmBench:
        """The detectors. Raises RoiCodecError."""
        return FilmBench(*self.judges.open(), every=self.judge_every, on_frame=on_frame)

    def report(
        self, clips: Sequence[Clip], rows: Sequence[list[Row]], pan_px_s: float | None
    ) -> dict[str, Any]:
        """What was measured, on what, with what; JSON types only. rows: of each clip."""
        return {
            **self.judges.report(),
            "keyframe_s": self.keyframe_s,
            "judge_every": self.judge_every,
            "pan_px_s": pan_px_s,
            "videos": [
                {
                    "file": clip.name,
                    "frames": len(clip.images),
                    "rate_hz": clip.rate_hz,
                    "width": clip.size[1],
                    "height": clip.size[0],
                    "rows": found,
                }
                for clip, found in zip(clips, rows, strict=True)
            ],
        }
