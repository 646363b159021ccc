# SPDX-License-Identifier: Apache-2.0
"""How much memory `roi-codec anonymize` takes while it works through a large bag.

A bag is repeated until it is as large as is asked for, and anonymized; memory is looked at again
and again meanwhile. After the minutes that are asked for the run is ended, wherever it is. A
gigabyte is some 350 raw images of 1280×720, or thousands of JPEGs, each of which takes as long.

example:
  python -m roi_codec_ros.lab.tools.recording_memory bag/ --gigabytes 2 --minutes 5
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roi_codec_ros.lab.tools.soak import sample_process
from roi_codec_ros.recordings.bag_reading import Bag
from roi_codec_ros.recordings.bag_writing import Channel, PartsWriter

LOOK_S = 0.5
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


def repeated(source: Path, target: Path, size_bytes: float) -> int:
    """Write a bag again and again behind itself, until it holds that much; its messages.

    Raises RoiCodecError.
    """
    with Bag(source, target.parent) as bag:
        channels = [Channel(connection, connection.msgtype) for connection in bag.connections]
        writer = PartsWriter(target, bag, channels, "repeated")
        count = held = offset_ns = 0
        while held < size_bytes:
            first_ns = last_ns = 0
            for number, stamp_ns, content in bag.messages():
                first_ns, last_ns = first_ns or stamp_ns, stamp_ns
                writer.write(number, stamp_ns + offset_ns, content)
                count, held = count + 1, held + len(content)
                if held >= size_bytes:
                    break
            offset_ns += last_ns - first_ns + 33_000_000
        writer.finish()
    return count


@dataclass
class Watched:
    """A run: its resident memory each `LOOK_S`, MiB, what it has written, and how long it took."""

    memory_mib: list[float] = field(default_factory=list)
    written_bytes: int = 0
    seconds: float = 0.0
    ended: bool = False  # before it was done


def watched(command: list[str], output: Path, most_s: float) -> Watched:
    """Run a command that writes beside ``output``, for ``most_s`` at the longest.

    Raises CalledProcessError if it fails, or is done before it was looked at.
    """
    found = Watched()
    started = time.monotonic()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            if (sample := sample_process(process.pid)) is not None:
                found.memory_mib.append(sample.rss_mib)
            if time.monotonic() - started > most_s:
                found.ended = True
                process.terminate()
                break
            time.sleep(LOOK_S)
    found.seconds = time.monotonic() - started
    found.written_bytes = sum(p.stat().st_size for p in output.parent.rglob("*") if p.is_file())
    if not found.memory_mib or (process.returncode and not found.ended):
        raise subprocess.CalledProcessError(process.returncode, command)
    return found


def main() -> int:
    """Run the measurement, print it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bag", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="default: %(default)g")
    parser.add_argument(
        "--minutes", type=float, default=4.0, help="after which it is ended (default: %(default)g)"
    )
    parser.add_argument("options", nargs="*", help="of roi-codec anonymize, behind --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bag = Path(scratch, "bag")
        messages = repeated(args.bag, bag, args.gigabytes * 1e9)
        output = Path(scratch, "output", "bag")
        output.parent.mkdir()
        verb = [sys.executable, "-m", "roi_codec_ros.cli", "anonymize"]
        run = watched([*verb, str(bag), str(output), *args.options], output, 60 * args.minutes)
    memory = run.memory_mib
    figures: dict[str, Any] = {
        "gigabytes": args.gigabytes,
        "messages": messages,
        "done": not run.ended,
        "seconds": round(run.seconds),
        "gigabytes_written": round(run.written_bytes / 1e9, 3),
    }
    figures["memory_mib_at_share_of_time"] = {
        f"{share:g}": round(memory[min(len(memory) - 1, int(share * len(memory)))])
        for share in SHARES
    }
    figures["most_memory_mib"] = round(max(memory))
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
