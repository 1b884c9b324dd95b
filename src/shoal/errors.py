"""Every error Shoal raises on purpose, named by whose fault it is.

A message says where, what was found, what was expected.  ``code`` is stable and made for programs (``--format json``);
the text is made for people and may change.
"""

from __future__ import annotations

from shoal.limits import NAME_SHOWN_MAX


class ShoalError(Exception):
    """Base of the family.

    code     str    stable dotted reason, e.g. ``"tensor.nonfinite"``
    message  str    one line for people
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ArgumentError(ShoalError, ValueError):
    """The caller's fault: a weight, parameter, array or option that cannot be used."""


class InputError(ShoalError):
    """The bytes' fault: a file that is damaged, hostile, or does not belong with the others."""


class PeerError(ShoalError):
    """A peer's fault: a message or statement that breaks the protocol."""


class MachineError(ShoalError):
    """This machine's fault: disk full, permission denied, a part that is not installed."""


def shown(text: str, limit: int = NAME_SHOWN_MAX) -> str:
    """Foreign text (a tensor's name, a path, another library's message) as it may stand in one line for people.

    Control, format and unpaired characters are escaped as Python writes them, so that no name can move the cursor, turn
    the direction of writing or start a new line; longer text is cut to `limit` characters.
    """
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
