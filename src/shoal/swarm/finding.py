"""What an examination of a site finds: one line for each check, and what to do where it is not well."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Level = Literal["ok", "warning", "fault"]
LEVELS: Final[tuple[Level, ...]] = ("ok", "warning", "fault")


class Finding(msgspec.Struct, frozen=True):
    """level   ok; warning: the node runs, but not as well as it could; fault: it does not start, or takes no part
    check   what was looked at: "keys", "disk", or "member north"
    found   what was found, in words, foreign text already made harmless
    advice  what to do; "" if nothing is to be done
    """

    level: Level
    check: str
    found: str
    advice: str = ""


def worst(findings: list[Finding]) -> Level:
    """The worst level among them; ok if there are none."""
    return LEVELS[max((LEVELS.index(f.level) for f in findings), default=0)]
