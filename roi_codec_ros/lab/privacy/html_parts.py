# SPDX-License-Identifier: Apache-2.0
"""What the pages of reports are made of: style, names of sources, tables, pictures inlined."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image

PICTURE_QUALITY = 72

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
ROLES = {"original": "ceiling", "jpeg": "ceiling", "erased": "floor"}
STYLE = """
body{font:16px/1.55 system-ui,sans-serif;color:#1c2330;background:#fff;margin:0 auto;
padding:2.5rem 1.5rem 4rem;max-width:66rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.25rem;margin:2.6rem 0 .6rem;padding-top:.9rem;border-top:1px solid #d9dee6}
p,li{max-width:46rem}.quiet{color:#5b6675;font-size:.9rem}
.facts{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.4rem 0}
.fact{flex:1 1 9rem;background:#f4f6f9;border-radius:.5rem;padding:.8rem 1rem}
.fact b{display:block;font-size:1.55rem;line-height:1.25}.fact span{color:#5b6675;font-size:.88rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums;margin:.8rem 0}
th,td{padding:.32rem .55rem;text-align:right;border-bottom:1px solid #e6eaf0;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:.2rem}
thead th{border-bottom:2px solid #aab4c2;font-weight:600}
tr.ceiling td{background:#fdf4ee}tr.floor td{background:#eef7f1}tr.main td{font-weight:650}
.role{color:#5b6675;font-size:.82rem;font-weight:400}
.pictures{display:grid;grid-template-columns:1fr 1fr;gap:.7rem;margin:1rem 0 1.8rem}
.pictures img{width:100%;border-radius:.3rem;display:block}
.heads{display:flex;flex-wrap:wrap;gap:.9rem}.heads div{display:flex;gap:2px}
.heads img{width:96px;height:96px}
.strips{display:grid;gap:3px;margin:.8rem 0 1.4rem;overflow-x:auto}
.strips img{width:144px;height:144px}
figure{margin:0}figcaption{color:#5b6675;font-size:.84rem;margin-top:.15rem}
@media(max-width:40rem){.pictures{grid-template-columns:1fr}}
"""


def label(source: str) -> str:
    """What a source of pictures is called, as text."""
    return LABELS.get(source, source.replace("_", " "))


def table(header: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """`rows`: a CSS class and cells; header and cells are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(
        f"<tr class='{kind}'>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for kind, cells in rows
    )
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(picture: Image.Image, caption: str) -> str:
    """A picture with its caption below."""
    text = escape(caption)
    return f"<figure>{inline(picture, caption)}<figcaption>{text}</figcaption></figure>"


def inline(picture: Image.Image, description: str) -> str:
    """A picture as JPEG inside of the page itself."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=PICTURE_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<img alt='{escape(description)}' src='data:image/jpeg;base64,{data}'>"
