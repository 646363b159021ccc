# SPDX-License-Identifier: Apache-2.0
"""A video of a simulated hall from above: persons, and the tracks that follow them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2

from roi_codec_ros.common.videos import video_file
from roi_codec_ros.lab.demo.map_picture import hall_picture, marks_of
from roi_codec_ros.lab.demo.outputs import open_writer
from roi_codec_ros.lab.evaluation.tracking_scores import Sample
from roi_codec_ros.lab.simulation.measured_hall import Hall
from roi_codec_ros.perception.tracking import Tracks


def filmed(
    moments: Iterable[tuple[Sample, Tracks]], hall: Hall, path: Path
) -> Iterator[tuple[Sample, Tracks]]:
    """The same moments, each drawn into the video on its way. Raises RoiCodecError."""
    picture = hall_picture(hall.settings.floor, hall.cameras)
    height, width = picture.size
    with video_file(path, lambda file: open_writer(file, (width, height))) as add:
        for sample, tracks in moments:
            drawn = picture.draw(
                marks_of(tracks),
                truth=sample.person_xy,
                title=f"{sample.stamp:.1f} s",
                note="rings: persons · dots: tracks with 95 % ellipses and a second's way",
            )
            add(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
            yield sample, tracks
