# SPDX-License-Identifier: Apache-2.0
"""The one error family: each error is a single line that says what was expected and found."""

from __future__ import annotations


def reason_of(error: BaseException, *, most: int | None = None) -> str:
    """What another library's error says, in one line; of the system's errors without the path.

    most: characters, after which it is cut.
    """
    said = getattr(error, "strerror", None) or " ".join(str(error).split())
    said = said or type(error).__name__
    return said if most is None or len(said) <= most else f"{said[: most - 1]}…"


class RoiCodecError(Exception):
    """Anything that a user, a file or a network peer can cause; `str()` is one line."""


class UsageError(RoiCodecError):
    """The command was used in a way that cannot work (found after its arguments were parsed)."""


class BitstreamError(RoiCodecError):
    """A payload or a coded body is damaged, foreign or out of bounds."""


class UnknownModelError(BitstreamError):
    """A valid payload of a model that is not available."""


class ModelFileError(RoiCodecError):
    """A model file, or a table that would go into one, is not valid."""
