"""Every error Shoal raises on purpose, named by whose fault it is.

A message says where, what was found, what was expected.  ``code`` is stable and made for programs (``--format json``);
the text is made for people and may change.
"""

from __future__ import annotations


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
