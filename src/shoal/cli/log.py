"""What a node that runs says on standard error: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import enum
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shoal.cli.show import note
from shoal.errors import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.swarm.peer import Notice

#: characters of a message
_MESSAGE_MAX = 500


class LogForm(enum.StrEnum):
    """text: for people.  json: one object (RFC 8259) a line, with the fields of docs/FORMAT.md."""

    text = "text"
    json = "json"


class Log:
    """form   how
    site   name of this site, in every object
    round  gives the last certified round, in every object
    """

    def __init__(self, form: LogForm, site: str, round_: Callable[[], int]) -> None:
        self._form = form
        self._site = site
        self._round = round_

    def notice(self, notice: Notice) -> None:
        self.say(notice.level, notice.text, notice.code, notice.slot, notice.peer)

    def say(self, level: str, message: str, code: str, slot: int = -1, peer: bytes = b"") -> None:
        """One line.  ``message`` may hold foreign text."""
        message = shown(message, _MESSAGE_MAX)
        if self._form is LogForm.text:
            word = "" if level == "info" else f"{level}: "
            note(f"{time.strftime('%H:%M:%S')} {word}{message}")
            return
        facts: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "code": code,
            "message": message,
            "site": self._site,
            "round": self._round(),
        }
        if slot >= 0:
            facts["slot"] = slot
        if peer:
            facts["peer"] = peer.hex()
        note(json.dumps(facts))
