# SPDX-License-Identifier: Apache-2.0
"""Report what is installed here, what works and how fast: one page to paste into a bug report.

The output contains no host names, and no camera is opened. The exit status is 1 if something that
every use needs does not work.

example:
  roi-codec doctor
  roi-codec doctor --server 10.0.0.1 --json doctor.json
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from roi_codec_ros.commands.arguments import add_force_option, add_json_option, outputs
from roi_codec_ros.common.errors import RoiCodecError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--server",
        metavar="HOST[:PORT]",
        help="ask its time server (NTP) how far this machine's clock is from the server's",
    )
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError if something that every use needs does not work."""
    from roi_codec_ros.diagnosis.installation import look_at_everything
    from roi_codec_ros.diagnosis.network import BAD, GOOD

    files = outputs(args, "json")
    findings = look_at_everything(args.server)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        level = "" if finding.level == GOOD else finding.level
        print(f"{finding.subject:<{width}}  {level:<8} {finding.text}")
    if args.json:
        files["json"].write_json({"findings": [asdict(finding) for finding in findings]})
    bad = [finding.subject for finding in findings if finding.level == BAD]
    if bad:
        raise RoiCodecError(f"expected all of it to work, found trouble with {', '.join(bad)}")
