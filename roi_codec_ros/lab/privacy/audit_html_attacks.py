# SPDX-License-Identifier: Apache-2.0
"""The audit's page, sections 2 and 3: trained attackers, and re-identification."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from PIL import Image

from roi_codec_ros.lab.privacy.audit import ShownHead
from roi_codec_ros.lab.privacy.html_parts import inline, label, table
from roi_codec_ros.lab.privacy.versions import attacker_source

HEAD_SIDE_PX = 144
REID_ORDER = ("original", "jpeg", "decoded", "negated")
REID_ROLES = {"original": "ceiling", "jpeg": "ceiling"}


def attack_section(report: dict[str, Any], heads: Sequence[ShownHead]) -> str:
    """Section 2: what the attackers restored, beside what they started from."""
    title = "<h2>2 · Attackers who train a decoder of their own</h2>"
    attack = report["attacker"]
    if attack is None:
        return f"{title}{_left_out(report, 'attacker')}"
    found = report["heads"]["found"]["union"]
    quality = attack["head_psnr_db"]
    rows = [
        (
            REID_ROLES.get(source, "floor" if source == "erased" else ""),
            [
                escape(label(source)),
                "–",
                str(report["union"][source]),
                str(found[source]),
                _decibel(quality.get(source)),
            ],
        )
        for source in ("original", "jpeg", "erased", "decoded")
    ]
    names = [name for name in attack if attacker_source(name) in found]
    rows += [
        (
            "main",
            [
                escape(label(attacker_source(name))),
                f"{attack[name]['pairs']:,}",
                str(attack[name]["union"]),
                str(found[attacker_source(name)]),
                _decibel(attack[name]["head_psnr_db"]),
            ],
        )
        for name in names
    ]
    header = ["", "pairs seen", "faces reported", "heads found", "PSNR in heads, dB"]
    return (
        f"{title}<p>Who can decode holds the model file, encoder included, and so can make pairs "
        "of code and photograph out of photographs of his own. Each attacker is a network "
        f"trained for {attack['minutes']:.3g} minutes on this machine, on crops of another split, "
        "to give the original back, heads counted most: one restores from the latents, with the "
        "model's own synthesis to start from, the other from the decoded picture. Detectors are "
        "counted as in section 1; the PSNR is that of the mean squared error inside of annotated "
        "heads, beside the originals.</p>"
        f"{table(header, rows)}"
        f"{strips(heads, 'The largest annotated heads of the audited images:')}"
        "<p class='quiet'>Assumed: the attacker has photographs of the same kind as the audited "
        "ones, one frame at a time, and no more computing than said. He is paid for the squared "
        "error, which gives the mean of all faces that the code allows: where nothing is left of "
        "a face he paints a blur, and not an invented one. A longer training, more photographs "
        "or a larger network may find more. That a detector reports a restored face does "
        "not mean that it is the right one: that is section 3.</p>"
    )


def reid_section(report: dict[str, Any], probes: Sequence[ShownHead]) -> str:
    """Section 3: whether a recognizer names pasted faces."""
    title = "<h2>3 · Re-identification</h2>"
    reid = report["reid"]
    if reid is None:
        return f"{title}{_left_out(report, 'reid')}"
    sources = [
        *(source for source in REID_ORDER if source in reid),
        *(source for source in reid if source.startswith("attacker_")),
    ]
    rows = [
        (
            "main" if source == "decoded" else REID_ROLES.get(source, ""),
            [
                _with_role(source, REID_ROLES.get(source, "")),
                str(reid[source]["rank1"]),
                str(reid[source]["tar_at_far_1e3"]),
                *(str(counts[source]["rank1"]) for counts in reid["by_size"].values()),
            ],
        )
        for source in sources
    ]
    by_size = [f"{counts['chance']:.1f}" for counts in reid["by_size"].values()]
    guess = ["by chance <span class='role'>floor</span>", f"{reid['chance']:.1f}"]
    rows.append(("floor", [*guess, f"{reid['probes'] * 1e-3:.1f}", *by_size]))
    total = ["probes", str(reid["probes"]), str(reid["probes"])]
    sizes = [str(counts["probes"]) for counts in reid["by_size"].values()]
    rows.append(("", [*total, *sizes]))
    header = [
        "",
        "rank-1",
        "accepted at FAR 0.001",
        *(f"rank-1, {size} px" for size in reid["by_size"]),
    ]
    return (
        f"{title}<p>{reid['identities']} clear faces of this split are pasted into its other "
        f"scenes at several sizes (the root of the face's area), {reid['probes']} times in all, "
        f"and {escape(reid['embedder'])} says which of the {reid['identities']} they are. "
        "<em>Rank-1</em>: how many are nearest to their own original. <em>Accepted</em>: how "
        "many are nearer to it than a threshold that lets through one in a thousand pairs of "
        f"different people ({reid['impostor_pairs']:,} pairs, the threshold set anew for each "
        "row).</p>"
        f"{table(header, rows)}"
        f"{strips(probes, 'Some of the pasted faces:')}"
        "<p class='quiet'>Assumed: an attacker who knows where "
        "each face is, to the pixel, and who has the very photograph in his gallery that the "
        "probe was made of, mirrored, scaled and with another brightness and contrast. There is "
        "no easier probe: this measures whether any signal of identity survives, and a match of "
        "two different photographs is harder. Hair and some surroundings are pasted along and "
        "may help him. A pasted head sits on no body, so that a codec which knows heads by their "
        "bodies hides it less than a real one. The faces are those of the data set, which says "
        "nothing about other people or recognizers.</p>"
    )


def _left_out(report: dict[str, Any], section: str) -> str:
    reason = report["left_out"].get(section, "not measured")
    return f"<p>Left out: {escape(reason)}.</p>"


def _with_role(source: str, role: str) -> str:
    tag = f" <span class='role'>{role}</span>" if role else ""
    return f"{escape(label(source))}{tag}"


def _decibel(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def strips(heads: Sequence[ShownHead], title: str) -> str:
    """Heads below one another, what became of each beside it."""
    if not heads:
        return ""
    columns = list(heads[0].crops)
    captions = "".join(f"<figcaption>{escape(label(source))}</figcaption>" for source in columns)
    rows = "".join(
        "".join(
            inline(_square(head.crops[source]), f"head, {label(source)}") for source in columns
        )
        for head in heads
    )
    style = f"grid-template-columns:repeat({len(columns)},{HEAD_SIDE_PX}px)"
    return f"<p>{escape(title)}</p><div class='strips' style='{style}'>{captions}{rows}</div>"


def _square(crop: Any) -> Image.Image:
    picture = Image.fromarray(crop)
    scale = HEAD_SIDE_PX / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    canvas = Image.new("RGB", (HEAD_SIDE_PX, HEAD_SIDE_PX), "white")
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    canvas.paste(resized, ((HEAD_SIDE_PX - width) // 2, (HEAD_SIDE_PX - height) // 2))
    return canvas
