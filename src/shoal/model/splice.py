"""Replace byte ranges inside a protobuf file without parsing it, and keep every enclosing length right.

Pure arithmetic: a file's bytes come in through a read function and a list of edits; out goes the order of pieces that
make the new file.  Nothing is read but the length varints that change, nothing is written.

source  Protocol Buffers, "Encoding": a length-delimited field is a tag, a varint of its content's length, the content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from shoal.errors import ArgumentError, InputError
from shoal.limits import PROTO_BYTES_MAX

#: bytes of the longest varint: ten groups of seven bits hold 64.
VARINT_BYTES_MAX = 10

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Slot:
    """A hole of ``size`` bytes in the new file that somebody fills later; ``key`` says for whom."""

    key: object
    size: int


@dataclass(frozen=True, slots=True)
class Edit:
    """Put ``content`` (bytes and slots, in order) in the place of the old bytes ``[start, stop)``.

    enclosing  offsets in the old file of the length varint of every length-delimited field around the range,
               outermost first.  An empty range (start == stop) inserts.
    """

    start: int
    stop: int
    content: tuple[bytes | Slot, ...]
    enclosing: tuple[int, ...]

    @property
    def growth(self) -> int:
        """Bytes by which the file grows here (negative where it shrinks)."""
        return sum(len(part) if isinstance(part, bytes) else part.size for part in self.content) - (
            self.stop - self.start
        )


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes ``[start, stop)`` of the old file, at ``at`` of the new one."""

    at: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Literal:
    """New bytes, at ``at`` of the new file."""

    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Hole:
    """A slot, at ``at`` of the new file."""

    at: int
    slot: Slot


@dataclass(frozen=True, slots=True)
class Layout:
    """The new file: pieces that touch each other from byte 0 to ``size``."""

    pieces: tuple[Copy | Literal | Hole, ...]
    size: int

    def holes(self) -> dict[object, int]:
        """Where each slot lies in the new file: key -> offset."""
        return {piece.slot.key: piece.at for piece in self.pieces if isinstance(piece, Hole)}


def encode_varint(value: int) -> bytes:
    """Return the shortest varint of ``value`` (0 <= value < 2**64)."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes) -> tuple[int, int]:
    """Return (value, bytes used) of the varint that ``data`` starts with.

    raises  InputError  if it does not end within ten bytes or within ``data``
    """
    value = 0
    for used, byte in enumerate(data[:VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * used)
        if byte < 0x80:
            return value, used + 1
    raise InputError(
        "model.varint", f"a length of {len(data[:VARINT_BYTES_MAX])} bytes has no end; expected at most 10"
    )


def splice(read: Read, size: int, edits: Iterable[Edit]) -> Layout:
    """Lay out the file that follows from ``edits``.

    read     read(offset, n) -> the old file's bytes from offset; fewer than n only at the end
    size     bytes of the old file
    edits    in any order; those that insert at one place keep their order
    returns  the new layout; lengths whose content keeps its size keep their bytes, even padded ones
    raises   ArgumentError  if edits overlap each other, a length varint, or the end of the file
             InputError     if the new file would be larger than protobuf allows
    """
    ordered = sorted(edits, key=lambda edit: (edit.start, edit.stop))
    changes = sorted([*ordered, *_lengths(read, ordered)], key=lambda edit: (edit.start, edit.stop))
    for before, after in pairwise(changes):
        if before.stop > after.start:
            raise ArgumentError(
                "splice.overlap",
                f"edits of bytes {before.start}-{before.stop} and {after.start}-{after.stop} overlap; expected apart",
            )
    if changes and (changes[0].start < 0 or changes[-1].stop > size):
        raise ArgumentError("splice.range", f"an edit lies outside the file of {size} bytes")
    layout = _assemble(size, changes)
    if layout.size > PROTO_BYTES_MAX:
        raise InputError(
            "model.too_large", f"the new model would take {layout.size} bytes; expected at most {PROTO_BYTES_MAX}"
        )
    return layout


def _lengths(read: Read, edits: Sequence[Edit]) -> list[Edit]:
    """Return an edit for each length varint whose value changes.

    Inner lengths lie behind outer ones in the file, so going from the last offset to the first meets every length
    after all that it contains; a varint that changes its own width changes the length around it, too.
    """
    growth: dict[int, int] = {}
    parent: dict[int, int | None] = {}
    for edit in edits:
        _note_parents(parent, edit.enclosing)
        if edit.enclosing and edit.growth:
            growth[edit.enclosing[-1]] = growth.get(edit.enclosing[-1], 0) + edit.growth
    changed = []
    for offset in sorted(parent, reverse=True):
        by = growth.get(offset, 0)
        if by == 0:
            continue
        length, width = decode_varint(read(offset, VARINT_BYTES_MAX))
        if length + by < 0:
            raise ArgumentError("splice.range", f"edits remove {-by} bytes of a field of {length} at byte {offset}")
        new = encode_varint(length + by)
        changed.append(Edit(offset, offset + width, (new,), ()))
        outer = parent[offset]
        if outer is not None:
            growth[outer] = growth.get(outer, 0) + by + len(new) - width
    return changed


def _note_parents(parent: dict[int, int | None], enclosing: tuple[int, ...]) -> None:
    """Note which length lies directly around which; the same offset must always have the same outer one."""
    outer: int | None = None
    for offset in enclosing:
        if parent.setdefault(offset, outer) != outer or (outer is not None and outer >= offset):
            raise ArgumentError("splice.enclosing", f"the length at byte {offset} does not lie in the one at {outer}")
        outer = offset


def _assemble(size: int, changes: Sequence[Edit]) -> Layout:
    """Put the sorted, disjoint changes and what lies between them into one line; empty pieces are left out."""
    pieces: list[Copy | Literal | Hole] = []
    at = copied = 0
    for change in changes:
        if change.start > copied:
            pieces.append(Copy(at, copied, change.start))
            at += change.start - copied
        copied = change.stop
        for part in change.content:
            pieces.append(Literal(at, part) if isinstance(part, bytes) else Hole(at, part))
            at += len(part) if isinstance(part, bytes) else part.size
    if size > copied:
        pieces.append(Copy(at, copied, size))
        at += size - copied
    return Layout(tuple(pieces), at)
