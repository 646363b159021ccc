# SPDX-License-Identifier: Apache-2.0
"""How much memory `roi-codec anonymize` takes while it works through a large bag.

A bag is repeated until it is as large as is asked for, and anonymized; memory is looked at again
and again meanwhile.

example:
  python -m roi_codec_ros.lab.tools.recording_memory bag/ --gigabytes 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from roi_codec_ros.recordings.bag_reading import Bag
from roi_codec_ros.recordings.bag_writing import Channel, PartsWriter

LOOK_S = 0.5
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
MIB = 1 << 20


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


def watched(command: list[str]) -> list[float]:
    """Run a command; its resident memory each `LOOK_S`, MiB. Raises CalledProcessError."""
    found = []
    with subprocess.Popen(command) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if "VmRSS" in lines:
                found.append(float(lines["VmRSS"].split()[0]) / 1024)
            time.sleep(LOOK_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return found


def main() -> int:
    """Run the measurement, print it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bag", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="default: %(default)g")
    parser.add_argument("options", nargs="*", help="of roi-codec anonymize, behind --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bag = Path(scratch, "bag")
        messages = repeated(args.bag, bag, args.gigabytes * 1e9)
        verb = [sys.executable, "-m", "roi_codec_ros.cli", "anonymize"]
        memory = watched([*verb, str(bag), str(Path(scratch, "out")), *args.options])
    figures: dict[str, Any] = {"gigabytes": args.gigabytes, "messages": messages}
    figures["memory_mib_at_share_of_time"] = {
        f"{share:g}": round(memory[min(len(memory) - 1, int(share * len(memory)))])
        for share in SHARES
    }
    figures["most_memory_mib"] = round(max(memory))
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
