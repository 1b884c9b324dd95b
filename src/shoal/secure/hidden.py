"""A struct that holds secrets: neither ``repr`` nor a pretty printer shows a field of it."""

from __future__ import annotations

from typing import Any

import msgspec


class Hidden(msgspec.Struct, frozen=True):
    """Base of structs whose fields are never shown."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []
