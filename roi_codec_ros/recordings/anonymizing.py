# SPDX-License-Identifier: Apache-2.0
"""Hides the heads in a recording, of whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.output_files import Output
from roi_codec_ros.recordings.bag_reading import is_bag
from roi_codec_ros.recordings.bags import BagOptions, anonymize_bag
from roi_codec_ros.recordings.film_files import anonymize_film, is_film
from roi_codec_ros.recordings.folders import anonymize_folder, anonymize_picture, other_files
from roi_codec_ros.recordings.pipeline import Settings
from roi_codec_ros.recordings.tally import Result


def anonymize_recording(
    source: Path,
    target: Path,
    settings: Settings,
    options: BagOptions,
    *,
    audio: bool,
    force: bool,
    told: str,
    say: Callable[[str], None],
) -> Result:
    """Write a bag, film, folder or picture anew without heads.

    options: of bags; its quality also of films. audio: whether films keep their sound. told: what
    tells the other settings apart, for a run that goes on after a kill. say: gets a line on what
    is not written, before the work begins. Raises RoiCodecError.
    """
    if is_bag(source):
        return anonymize_bag(source, target, settings, options, force=force, told=told)
    if options.topics or options.keep or options.form:
        raise UsageError(f"expected a bag for --topics, --keep and --as, found {source}")
    if is_film(source):
        return anonymize_film(
            source,
            target,
            settings,
            quality=options.quality,
            audio=audio,
            force=force,
            told=told,
        )
    if source.is_dir():
        others = other_files(source)
        if others:
            say(f"not copied, since not pictures: {len(others)}, the first: {others[0]}")
        return Result([anonymize_folder(source, target, settings, force=force, told=told)])
    output = Output(target, force=force, inputs=[source])
    return Result([anonymize_picture(source, output, settings)])
