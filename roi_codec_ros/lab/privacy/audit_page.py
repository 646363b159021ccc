# SPDX-License-Identifier: Apache-2.0
"""The audit as one HTML file that needs nothing else; its text is in `audit_page.html.j2`."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from roi_codec_ros.common.files import GENERATOR
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.lab.privacy.audit import LEAKED_HEADS, Scene, ShownHead

TEMPLATE = "audit_page.html.j2"
PICTURE_QUALITY = 72
PICTURE_WIDTH_PX = 360
HEAD_SIDE_PX = 144
LEAKED_HEAD_SIDE_PX = 96
HEAD_MARGIN = 0.35
FACE_COLOUR = (255, 59, 48)
LABELS = {
    "original": "original",
    "jpeg": "JPEG at the same rate",
    "erased": "heads erased",
    "decoded": "decoded",
    "negated": "decoded, negative",
    "gamma_brighter": "decoded, gamma 0.5",
    "gamma_darker": "decoded, gamma 2",
    "contrast_stretch": "decoded, contrast stretched",
    "local_contrast": "decoded, local contrast",
    "unsharp": "decoded, unsharp mask",
    "super_resolution": "decoded, twice the size",
    "any": "decoded, any of these",
    "attacker_latents": "attacker, from latents",
    "attacker_decoded": "attacker, from decoded",
}
SHORT_LABELS = {
    "jpeg": "JPEG",
    "erased": "erased",
    "any": "any inversion",
    "attacker_latents": "from latents",
    "attacker_decoded": "from decoded",
}
ROLES = {"original": "ceiling", "jpeg": "ceiling", "erased": "floor"}


def audit_page(
    report: dict[str, Any],
    scenes: Sequence[Scene] = (),
    heads: Sequence[ShownHead] = (),
    probes: Sequence[ShownHead] = (),
) -> str:
    """The page of a report that `audit_report` made, with pictures inlined.

    heads: restored by attackers; probes: faces pasted for re-identification.
    Raises RoiCodecError where jinja2 is not installed.
    """
    jinja2 = optional("jinja2", needed_for="HTML reports", install="pip install jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "cut_head": _cut_head,
        "decibel": lambda value: "–" if value is None else f"{value:.1f}",
        "face_size": lambda size: f"rank-1, {size} px",
        "from": lambda key, mapping: mapping[key],
        "from_key": lambda mapping, key: mapping[key],
        "get_or_dash": lambda mapping, key: mapping.get(key, "–"),
        "label": _label,
        "one_decimal": lambda value: f"{value:.1f}",
        "percent": lambda share: "–" if share is None else f"{100 * share:.1f} %",
        "short_label": lambda source: SHORT_LABELS.get(source) or _label(source, short=True),
        "square": _square,
        "whole": lambda value: "–" if value is None else f"{value:,.0f}",
        "with_boxes": _with_boxes,
    }
    leaked = [(scene, box) for scene in scenes for box in scene.leaked]
    leaked.sort(key=lambda item: -float(np.prod(item[1][2:] - item[1][:2])))
    context: Mapping[str, Any] = {
        "generator": GENERATOR,
        "report": report,
        "attackers": [source for source in report["union"] if source.startswith("attacker_")],
        "roles": ROLES,
        "scenes": scenes,
        "leaked": leaked[:LEAKED_HEADS],
        "heads": heads,
        "probes": probes,
        "head_side_px": HEAD_SIDE_PX,
    }
    return str(environment.get_template(TEMPLATE).render(context))


def _label(source: str, *, short: bool = False) -> str:
    """How a source of pictures is called."""
    text = LABELS.get(source, source.replace("_", " "))
    return text.removeprefix("decoded, ") if short else text


def _inline(picture: Image.Image) -> str:
    """A picture as the URL of a JPEG that is in the page itself."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=PICTURE_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _with_boxes(image: ImageArray, faces: NDArray[np.float32]) -> str:
    picture = Image.fromarray(image)
    scale = PICTURE_WIDTH_PX / picture.width
    picture = picture.resize((PICTURE_WIDTH_PX, max(1, round(picture.height * scale))))
    draw = ImageDraw.Draw(picture)
    for box in faces * scale:
        draw.rectangle([float(value) for value in box], outline=FACE_COLOUR, width=2)
    return _inline(picture)


def _cut_head(image: ImageArray, head: NDArray[np.float32]) -> str:
    x, y = ((head[:2] + head[2:]) / 2).tolist()
    half = float((head[2:] - head[:2]).max()) * (0.5 + HEAD_MARGIN)
    box = (round(x - half), round(y - half), round(x + half), round(y + half))
    side = (LEAKED_HEAD_SIDE_PX, LEAKED_HEAD_SIDE_PX)
    return _inline(Image.fromarray(image).crop(box).resize(side, Image.Resampling.BICUBIC))


def _square(crop: ImageArray) -> str:
    """A crop scaled to fit into a white square."""
    picture = Image.fromarray(crop)
    scale = HEAD_SIDE_PX / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    canvas = Image.new("RGB", (HEAD_SIDE_PX, HEAD_SIDE_PX), "white")
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    canvas.paste(resized, ((HEAD_SIDE_PX - width) // 2, (HEAD_SIDE_PX - height) // 2))
    return _inline(canvas)
