# SPDX-License-Identifier: Apache-2.0
"""The audit as one HTML file that needs nothing else: tables, what they mean, a few pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from roi_codec_ros.lab.privacy.audit import LEAKED_HEADS, Scene, ShownHead
from roi_codec_ros.lab.privacy.audit_html_attacks import attack_section, reid_section
from roi_codec_ros.lab.privacy.html_parts import ROLES, STYLE, figure, inline, label, table

ImageArray = NDArray[np.uint8]

PICTURE_WIDTH_PX = 360
HEAD_WIDTH_PX = 96
HEAD_MARGIN = 0.35
FACE_COLOUR = (255, 59, 48)


def audit_html(
    report: dict[str, Any],
    scenes: Sequence[Scene],
    heads: Sequence[ShownHead] = (),
    probes: Sequence[ShownHead] = (),
) -> str:
    """A whole page of what `audit_report` holds, with pictures inlined.

    heads: what attackers restored; probes: faces that were pasted for re-identification.
    """
    name = escape(f"{report['model']}")
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>Privacy audit of {name}</title><style>{STYLE}</style></head><body>",
        f"<h1>Privacy audit of {name}</h1>",
        _about(report),
        _facts(report),
        _detectors(report),
        _sizes(report),
        _references(report),
        attack_section(report, heads),
        reid_section(report, probes),
        _bits(report),
        _not_protected(report),
        _pictures(scenes),
        _failures(report),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _about(report: dict[str, Any]) -> str:
    machine = report.get("machine", {})
    quick = " Quick: the inversions were tried on decoded images only." if report["quick"] else ""
    return (
        f"<p class='quiet'>Model {escape(report['model_id'])}, preset {escape(report['preset'])}; "
        f"{report['images']} images of {escape(report['dataset'])}/{escape(report['split'])}, "
        f"{report['heads']['annotated']} annotated heads. "
        f"{report['bits_per_pixel']['decoded']:.3f} bits per pixel; the JPEG beside it "
        f"{report['bits_per_pixel']['jpeg']:.3f}. {escape(str(machine.get('processor', '')))}."
        f"{quick} This file shows faces of the data set.</p>"
    )


def _facts(report: dict[str, Any]) -> str:
    union, heads, bits = report["union"], report["heads"], report["bits_per_head"]
    facts = [
        (f"{union['decoded']} of {union['original']}", "faces reported, decoded of original"),
        (str(union["erased"]), "faces reported once all annotated heads are erased (floor)"),
        (
            f"{heads['found']['union']['decoded']} of {heads['annotated']}",
            "annotated heads found in decoded images",
        ),
        (
            f"{heads['found']['union']['any']} of {heads['annotated']}",
            f"found in these or in some inversion ({heads['by_chance']['any']} of "
            f"{heads['by_chance']['heads']} by chance)",
        ),
    ]
    attackers = [column for column in union if column.startswith("attacker_")]
    if attackers:
        best = max(heads["found"]["union"][source] for source in attackers)
        facts.append(
            (f"{best} of {heads['annotated']}", "found in what a trained attacker restored")
        )
    reid = report["reid"]
    if reid is not None:
        restored = [reid[source]["rank1"] for source in attackers if source in reid]
        after = f", {max(restored)} after an attacker" if restored else ""
        facts.append(
            (
                f"{reid['decoded']['rank1']} of {reid['probes']}",
                f"pasted faces named right in decoded images{after}; {reid['chance']:.0f} by "
                f"chance, {reid['original']['rank1']} in the originals",
            )
        )
    if bits["heads"]:
        facts.append((f"{bits['median']:,.0f}", "bits that can depend on a head (median)"))
    cells = "".join(f"<div class='fact'><b>{a}</b><span>{b}</span></div>" for a, b in facts)
    return f"<div class='facts'>{cells}</div>"


def _detectors(report: dict[str, Any]) -> str:
    names = [*report["detectors"], "union"]
    counts = {**report["detectors"], "union": report["union"]}
    found, chance = report["heads"]["found"]["union"], report["heads"]["by_chance"]
    rows = []
    for column in report["union"]:
        role = ROLES.get(column, "")
        kind = "main" if column == "decoded" else role
        tag = f" <span class='role'>{role}</span>" if role else ""
        cells = [str(counts[name].get(column, "–")) for name in names]
        agreed = report["agreed_by_two"].get(column, "–") if column != "any" else "–"
        cells += [str(agreed), str(found[column]), str(chance[column])]
        rows.append((kind, [f"{escape(label(column))}{tag}", *cells]))
    header = ["", *map(escape, names), "by two or more", "heads found", "by chance"]
    return (
        "<h2>1 · Face detectors</h2>"
        "<p>Counts of faces that each detector reports, right or wrong. The union joins boxes of "
        "different detectors that overlap (IoU 0.3 or more). <em>Heads found</em>: annotated "
        "heads that a box of the union overlaps (IoU 0.2 or more). <em>By chance</em>: the same "
        f"with the {chance['heads']} heads of the image before, which is what boxes that know "
        "nothing of this image's faces would score.</p>"
        f"{table(header, rows)}"
        "<p class='quiet'>The ceilings are what the detectors can do on these photographs: on the "
        "originals, and on JPEG with the bytes that the model took (shrunk where JPEG can't reach "
        "them otherwise). The floor, originals with every annotated head filled with its mean "
        "colour, is what they report where nothing is left to find: false alarms, and faces that "
        "nobody annotated. Each attempt more brings false alarms of its own, so that the row of "
        "<em>any of these</em> is to be read by its heads found and by chance, not by its "
        "faces.</p>"
    )


def _sizes(report: dict[str, Any]) -> str:
    heads = report["heads"]
    by_size = heads["found_by_size_px"]["union"]
    wanted = ("original", "jpeg", "erased", "decoded", "negated", "any")
    attackers = [column for column in by_size if column.startswith("attacker_")]
    columns = [column for column in (*wanted, *attackers) if column in by_size]
    rows = [
        ("", [size, str(total), *(str(by_size[column][size]) for column in columns)])
        for size, total in heads["annotated_by_size_px"].items()
    ]
    header = ["head size, px", "annotated", *(escape(_short(column)) for column in columns)]
    return (
        "<h2>Heads found, by their size</h2><p>By the union of the detectors; the size of a head "
        "is the root of its box's area. <em>From</em>: what a trained attacker restored.</p>"
        f"{table(header, rows)}"
    )


def _short(source: str) -> str:
    """A source's name where the column has to be narrow."""
    if source.startswith("attacker_"):
        return source.replace("attacker_", "from ")
    short = {"jpeg": "JPEG", "erased": "erased", "any": "any inversion"}
    return short.get(source, label(source).removeprefix("decoded, "))


def _references(report: dict[str, Any]) -> str:
    same = report["same_inversions_on"]
    if not same:
        return ""
    inversions = list(next(iter(same.values())))
    rows = [
        (
            "",
            [
                escape(label(name).removeprefix("decoded, ")),
                *(str(same[source][name]["union"]) for source in same),
                str(report["union"][name]),
            ],
        )
        for name in inversions
    ]
    header = ["", *(escape(label(source)) for source in same), "decoded"]
    return (
        "<h2>The same inversions on what the model is held against</h2>"
        f"<p>Faces that the union reports.</p>{table(header, rows)}"
    )


def _bits(report: dict[str, Any]) -> str:
    bits = report["bits_per_head"]
    title = "<h2>4 · Bits per head</h2>"
    if not bits["heads"]:
        return f"{title}<p>No annotated head in these images.</p>"
    own, changed = bits["own_blocks"], bits["changed"]
    spreads = [
        ("main", ["all that can depend on the head", _bit(bits["median"]), _bit(bits["p95"])]),
        ("", ["blocks that lie under the head", _bit(own["median"]), _bit(own["p95"])]),
        ("", ["symbols that the face changes", _bit(changed["median"]), _bit(changed["p95"])]),
    ]
    fano = [
        (
            "",
            [
                f"{row['identities']:,}",
                f"{row['log2']:.1f}",
                f"{row['chance']:.2g}",
                "nothing: vacuous" if row["vacuous"] else f"at most {row['success_at_most']:.3f}",
            ],
        )
        for row in bits["fano"]
    ]
    vacuous = all(row["vacuous"] for row in bits["fano"])
    verdict = (
        "Here the bound is vacuous for every number of identities in the table, all of mankind "
        "included: there are far more bits around a head than it takes to name anybody. It does "
        "not follow that they do name anybody, only that no theorem forbids it; what protects is "
        "what the network has learned to leave out, and that has to be attacked to be believed."
        if vacuous
        else "Where the table says <em>at most</em>, no attacker does better in the mean."
    )
    return (
        f"{title}<p>Ideal code lengths under the model's own tables. A latent can depend on up to "
        f"{report['receptive_field_px']} px of the picture along each side, so that the first row "
        "counts much of a head's surroundings; only that row bounds an attacker. The second is "
        "the part of the stream under the head itself. The third is the code length of those "
        "symbols that come out otherwise when the head is filled with its mean colour before "
        "coding: how much of the stream the face really moves (the first "
        f"heads of each image, {changed['heads']} in all).</p>"
        f"{table(['bits', 'median', '95th percentile'], spreads)}"
        "<p>Fano's inequality bounds anyone who has one payload and the model, and has to tell "
        "which of N equally likely identities a head has. Assumed: identity reaches the payload "
        "through the pixels of the head box alone, everything else in the picture is known to the "
        "attacker already, one frame, and heads like those measured (the bound uses their mean of "
        f"{bits['mean']:,.0f} bits, since entropy is bounded by the mean code length).</p>"
        f"{table(['identities N', 'log2 N', 'chance', 'success rate'], fano)}<p>{verdict}</p>"
    )


def _not_protected(report: dict[str, Any]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in report["not_protected"])
    return f"<h2>5 · What is not protected</h2><ul>{items}</ul>"


def _pictures(scenes: Sequence[Scene]) -> str:
    if not scenes:
        return ""
    rows = []
    for scene in scenes:
        figures = "".join(
            figure(_scene_picture(picture, scene.faces[name]), f"{label(name)}: "
                    f"{len(scene.faces[name])} reported")
            for name, picture in scene.versions.items()
        )  # fmt: skip
        rows.append(f"<div class='pictures'>{figures}</div>")
    heads = [(scene, head) for scene in scenes for head in scene.leaked]
    heads.sort(key=lambda item: -float(np.prod(item[1][2:] - item[1][:2])))
    pairs = "".join(
        "<div>" + "".join(
            inline(_head_picture(scene.versions[name], head), f"head, {name}")
            for name in ("original", "decoded")
        ) + "</div>"
        for scene, head in heads[:LEAKED_HEADS]
    )  # fmt: skip
    leaked = (
        f"<h2>Heads that are still found</h2><p>Largest first, original and decoded.</p>"
        f"<div class='heads'>{pairs}</div>"
        if pairs
        else ""
    )
    return (
        "<h2>Where it looks worst</h2><p>The images with the most heads found after decoding, "
        "then those with the most faces before; reports of the union in red.</p>"
        + "".join(rows)
        + leaked
    )


def _failures(report: dict[str, Any]) -> str:
    if not report["failures"]:
        return ""
    items = "".join(
        f"<li>{escape(failure['image'])}: {escape(failure['reason'])}</li>"
        for failure in report["failures"]
    )
    return f"<h2>Images left out</h2><p>They count nowhere.</p><ul>{items}</ul>"


def _bit(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _scene_picture(image: ImageArray, faces: NDArray[np.float32]) -> Image.Image:
    picture = Image.fromarray(image)
    scale = PICTURE_WIDTH_PX / picture.width
    picture = picture.resize((PICTURE_WIDTH_PX, max(1, round(picture.height * scale))))
    draw = ImageDraw.Draw(picture)
    for box in faces * scale:
        draw.rectangle([float(value) for value in box], outline=FACE_COLOUR, width=2)
    return picture


def _head_picture(image: ImageArray, head: NDArray[np.float32]) -> Image.Image:
    centre = (head[:2] + head[2:]) / 2
    half = float((head[2:] - head[:2]).max()) * (0.5 + HEAD_MARGIN)
    box = (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half)
    crop = Image.fromarray(image).crop(tuple(round(float(value)) for value in box))
    return crop.resize((HEAD_WIDTH_PX, HEAD_WIDTH_PX), Image.Resampling.BICUBIC)
