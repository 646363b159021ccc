# SPDX-License-Identifier: Apache-2.0
"""`roi-codec`: one command with a verb for each task."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of
from roi_codec_ros.common.plugins import import_complaint

# Only the module of the verb in use is imported: `roi-codec encode` needs no torch training stack.
PRODUCT_VERBS: dict[str, str] = {
    "encode": "compress an image to a .roic file",
    "decode": "reconstruct the anonymized images of a .roic file or a bag of latents",
    "anonymize": "hide the heads in a recording: bags, films, folders, pictures",
    "doctor": "report what is installed, what works and how fast it is",
    "models": "list the installed models, or show the card of one",
    "site": "check the file that describes a site's cameras (cameras.launch.py)",
    "grab": "take one picture with a camera, heads hidden",
    "calibrate-ground": "find the pose of a camera from points with known positions",
}
LABORATORY_VERBS: dict[str, str] = {
    "annotate": "annotate photographs with person and head boxes from detectors",
    "train": "train a codec on photographs with person and head boxes",
    "train-regions": "train the network that recognises heads and persons",
    "export-model": "freeze a training checkpoint into a model file",
    "train-detector": "fine-tune a person detector on decoded images",
    "export": "export an encoder, a decoder or a detector as an ONNX graph",
    "evaluate": "measure bits, person precision and faces found, next to JPEG and AV1",
    "audit": "measure what face detectors and attackers recover from a model's bits",
    "bench": "time the codec, or a server, on this machine",
    "simulate": "track simulated people with four cameras and score the tracks",
    "soak": "run the whole graph for a long time, and check memory and latency",
    "demo": "run the whole graph on photographs, a video or a camera",
}
VERBS = {**PRODUCT_VERBS, **LABORATORY_VERBS}
# For terminals that lack a character.
_LIKE = {
    "×": "x",
    "–": "-",
    "·": "-",
    "…": "...",
    "λ": "lambda",
    "±": "+-",
    "°": " deg",
    "→": "->",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0, 1 when it ran and failed, 2 when it was used wrongly."""
    _print_what_can_be_printed()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(arguments)
    except ImportError as error:
        complaint = import_complaint(error)
        if complaint is None:
            raise
        print(f"roi-codec {_verb(arguments)}: {complaint}", file=sys.stderr)
        status = 1
    except SystemExit as end:  # argparse's, with its help or what is wrong
        if not _flush():
            return 1
        raise end
    return status if _flush() else max(status, 1)


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="roi-codec", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    chosen = _verb(arguments)
    module = None
    for name, summary in VERBS.items():
        verb = verbs.add_parser(name, help=summary)
        if name == chosen:
            folder = "commands" if name in PRODUCT_VERBS else "lab.commands"
            module = importlib.import_module(f"roi_codec_ros.{folder}.{name.replace('-', '_')}")
            verb.description = module.__doc__
            verb.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(verb)
    options = parser.parse_args(arguments)
    # What Pillow finds odd in a file is said here in one line, or makes no difference.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    assert module is not None  # argparse leaves with status 2 before, when no verb was named
    try:
        module.run(options)
    except UsageError as error:
        print(f"roi-codec {chosen}: {error}", file=sys.stderr)
        return 2
    except RoiCodecError as error:
        print(f"roi-codec {chosen}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        use = f"use {error.filename}" if error.filename else "write its output"
        print(f"roi-codec {chosen}: cannot {use}: {reason_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _verb(arguments: Sequence[str]) -> str | None:
    return next((a for a in arguments if not a.startswith("-")), None)


def _print_what_can_be_printed() -> None:
    """What the terminal's encoding lacks is printed as something like it, not as a traceback."""
    codecs.register_error("roi-codec", _something_like_it)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="roi-codec")


def _something_like_it(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_LIKE.get(character, "?") for character in text), error.end


def _flush() -> bool:
    """Write out what was printed; whether that was possible. Says so where it was not."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # What is left is thrown away, or the interpreter would try again on its way out.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(
                f"roi-codec: cannot write to standard output: {reason_of(error)}",
                file=sys.stderr,
            )
        return False
    except ValueError:  # it is closed
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
