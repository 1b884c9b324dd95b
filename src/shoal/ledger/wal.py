"""Reads SQLite's write-ahead log before SQLite does, because SQLite would forget a damaged part without a word.

SQLite takes the frames up to the first bad one for the log and drops the rest.  After a crash that is right: the last
transaction was not yet synced.  But a bit that flipped in an *acknowledged* transaction looks the same to SQLite, and
everything after it would silently be gone.  The two can be told apart: transactions are synced one after the other, so
only the last one can be torn.  If two commits follow the first bad frame, the first of them had been acknowledged.

Format: https://www.sqlite.org/fileformat2.html section 4.1.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = (0x377F0682, 0x377F0683)
_WORD: Final = 0xFFFFFFFF


class WalReport(msgspec.Struct, frozen=True):
    """What the file holds.

    frames   good frames up to the last commit among them
    lost     frames after those that belong to the same log: a transaction that was cut off
    damaged  True if an acknowledged transaction is among the lost
    """

    frames: int = 0
    lost: int = 0
    damaged: bool = False


def _sums(data: memoryview, a: int, b: int, order: str) -> tuple[int, int]:
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for i in range(0, len(words), 2):
        a = (a + words[i] + b) & _WORD
        b = (b + words[i + 1] + a) & _WORD
    return a, b


def check_wal(data: bytes) -> WalReport:
    """Go through the bytes of a ``-wal`` file.  Never raises: what is no log at all is an empty or a damaged one."""
    if len(data) < _HEADER.size + _FRAME.size:
        return WalReport()
    magic, _, page, _, salt_1, salt_2, sum_1, sum_2 = _HEADER.unpack_from(data)
    view = memoryview(data)
    sound = magic in _MAGIC and 512 <= page <= 65536 and page & (page - 1) == 0
    order = ">" if magic & 1 else "<"
    if not sound or _sums(view[:24], 0, 0, order) != (sum_1, sum_2):
        # SQLite syncs this header before any frame, so a crash does not tear it once a frame stands behind it.
        return WalReport(0, (len(data) - _HEADER.size) // _FRAME.size, damaged=any(data[32:]))
    step = _FRAME.size + page
    count = (len(data) - _HEADER.size) // step
    a, b = sum_1, sum_2
    good = committed = 0
    for i in range(count):
        at = _HEADER.size + i * step
        _, commit, s1, s2, c1, c2 = _FRAME.unpack_from(data, at)
        a, b = _sums(view[at : at + 8], a, b, order)
        a, b = _sums(view[at + _FRAME.size : at + step], a, b, order)
        if (s1, s2, c1, c2) != (salt_1, salt_2, a, b):
            break
        good = i + 1
        committed = good if commit else committed
    rest = [_FRAME.unpack_from(data, _HEADER.size + i * step) for i in range(good, count)]
    # Frames of an earlier log may follow, with other salts; one salt that fits tells a damaged frame of this log.
    own = [i for i, frame in enumerate(rest) if frame[2] == salt_1 or frame[3] == salt_2]
    commits = sum(1 for i in own if rest[i][1])
    piece = good == count and (len(data) - _HEADER.size) % step != 0
    lost = (good - committed) + (own[-1] + 1 if own else 0) + piece
    return WalReport(committed, lost, damaged=commits >= 2)
