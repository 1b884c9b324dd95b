"""The update file: golden bytes, and everything that somebody could send in its place."""

from __future__ import annotations

import hashlib
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from pairs import read_all, save_pair, small, trained

from shoal.diff.codec import CODECS, Tile
from shoal.diff.grid import Grid
from shoal.diff.make import DiffOptions, make_update
from shoal.diff.update_file import UpdateFile
from shoal.diff.update_format import Signer
from shoal.domain import DIGEST_BYTES
from shoal.errors import InputError
from shoal.limits import UPDATE_CHUNK_ELEMENTS
from shoal.model.layout import Layout

MAGIC = b"shoal-update 1\n"


def update(folder: Path, **options: Any) -> bytes:
    """Bytes of a small update."""
    base = small()
    pair = save_pair(folder, base, trained(base))
    make_update(*pair, folder / "u.shoal", DiffOptions(**{"seed": 1, **options}))
    return (folder / "u.shoal").read_bytes()


def refused(folder: Path, data: bytes) -> str:
    """The code of the error that reading these bytes gives; the message names the file."""
    path = folder / "bad.shoal"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    return caught.value.code


# --- by hand: an encoder of our own for headers, chunks and the end ---


def layout_rows(arrays: dict[str, np.ndarray]) -> tuple[bytes, list[Any]]:
    layout = Layout.of_arrays(arrays)
    return layout.digest, [[t.key.encode(), t.dtype.code, list(t.dims)] for t in layout.tensors]


def header(**changes: Any) -> dict[str, Any]:
    """Of an update of one tensor of 100 numbers, as float32."""
    digest, rows = layout_rows({"w": np.zeros(100, np.float32)})
    fields = {
        "base": bytes(32), "layout": digest, "codec": "float32", "seed": b"", "samples": None, "author": b"",
        "tensors": rows, "local": [],
    }  # fmt: skip
    return fields | changes


def built(head: dict[str, Any] | bytes, chunks: list[tuple[int, bytes]], *, tail: bytes = b"") -> bytes:
    """A file with these chunks (form, bytes) whose checksums are right."""
    raw = head if isinstance(head, bytes) else msgspec.msgpack.encode(list(head.values()))
    front = MAGIC + struct.pack("<I", len(raw)) + raw
    heads = [struct.pack("<IB", len(data), form) + hashlib.sha256(data).digest() for form, data in chunks]
    body = b"".join(h + data for h, (_, data) in zip(heads, chunks, strict=True))
    return front + body + hashlib.sha256(front + b"".join(heads)).digest() + tail


NUMBERS = bytes(400)


def test_our_own_encoder_agrees(tmp_path: Path) -> None:
    (tmp_path / "u.shoal").write_bytes(built(header(), [(0, NUMBERS)]))
    assert not read_all(tmp_path / "u.shoal").any()
    (tmp_path / "u.shoal").write_bytes(built(header(), [(1, zstandard.compress(NUMBERS))]))
    assert not read_all(tmp_path / "u.shoal").any()


def test_golden_bytes(tmp_path: Path) -> None:
    """Stored as coded, so that the version of zstandard does not matter; numbers that no library has to make."""
    base = {"a": np.arange(1000, dtype=np.float32), "ö": np.ones((2, 9), np.float16), "n": np.arange(3)}
    new = base | {"a": base["a"] + (np.arange(1000, dtype=np.float32) * 37 % 101 - 50) / np.float32(64)}
    make_update(*save_pair(tmp_path, base, new), tmp_path / "u.shoal", DiffOptions("eden-4", samples=812, seed=1))
    data = (tmp_path / "u.shoal").read_bytes()
    with UpdateFile.open(tmp_path / "u.shoal") as file:
        assert not file._forms.any()
    assert hashlib.sha256(data).hexdigest() == "4be2a839b21ff5ec1285ef4bac1602821365f823edbca8a449d89249d1e7ce51"


def test_what_the_header_tells(tmp_path: Path) -> None:
    data = update(tmp_path, codec="eden-2", samples=7, exclude=("w*",))
    with UpdateFile.open(tmp_path / "u.shoal") as file:
        assert (file.header.codec, file.header.samples, file.header.author, file.signature) == ("eden-2", 7, b"", b"")
        assert [t.key for t in file.layout.tensors] == ["brain", "half", "none", "one"]
        assert file.header.local == (b"w", b"wide") and file.size == len(data)
        assert file.signature_holds(lambda *_: False) is None
        file.verify()


def test_seeds(tmp_path: Path) -> None:
    one, same, other = (update(tmp_path, codec="eden-1", seed=seed) for seed in (5, 5, 6))
    assert one == same != other
    first, second = (update(tmp_path, codec="eden-1", seed=None) for _ in range(2))
    assert first != second
    assert update(tmp_path, codec="int8", seed=5) == update(tmp_path, codec="int8", seed=None)


# --- damage ---


@pytest.mark.parametrize("codec", ["eden-4", "float16"])
def test_cut_anywhere(codec: str, tmp_path: Path) -> None:
    data = update(tmp_path, codec=codec, exclude=("w", "half"))
    codes = {refused(tmp_path, data[:stop]) for stop in range(len(data))}
    assert codes <= {"update.cut", "update.format", "update.chunk", "update.sum"} and "update.cut" in codes


@pytest.mark.parametrize("codec", ["eden-4", "float32"])
def test_one_bit_flipped_anywhere(codec: str, tmp_path: Path) -> None:
    data = update(tmp_path, codec=codec, exclude=("w", "half"))
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        refused(tmp_path, bytes(changed))


def test_one_bit_of_a_signed_file(tmp_path: Path) -> None:
    """The end, its signature, and who signed: each bit counts."""
    from shoal.ledger.identity import Identity, signature_holds

    identity = Identity.from_seed(bytes(range(32)))
    data = update(tmp_path, codec="eden-1", signer=Signer(identity.public, identity.sign))
    with UpdateFile.open(tmp_path / "u.shoal") as file:
        assert file.signature_holds(signature_holds) is True and file.header.author == identity.public
    for at in range(len(data) - 64, len(data)):
        (tmp_path / "u.shoal").write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with UpdateFile.open(tmp_path / "u.shoal") as file, pytest.raises(InputError) as caught:
            file.require_signature(signature_holds)
        assert caught.value.code == "update.signature"
    for at in range(len(data) - 96, len(data) - 64):
        assert refused(tmp_path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) == "update.sum"
    assert refused(tmp_path, data[:-64]) == "update.cut"


def test_bytes_behind_the_end(tmp_path: Path) -> None:
    data = update(tmp_path)
    assert refused(tmp_path, data + b"\0") == "update.format"
    assert refused(tmp_path, data + bytes(64)) == "update.format"


def test_other_files(tmp_path: Path) -> None:
    for data in (b"", b"shoal", b"PK\3\4 something else", bytes(1000)):
        assert refused(tmp_path, data) in ("update.format", "update.cut")
    (tmp_path / "bad.shoal").write_bytes(b"shoal-update 2\n" + bytes(100))
    with pytest.raises(InputError, match="version '2'; this Shoal reads 1"):
        UpdateFile.open(tmp_path / "bad.shoal")
    os.mkfifo(tmp_path / "pipe")
    for name, code in (("pipe", "file.not_regular"), (".", "file.not_regular"), ("gone", "file.missing")):
        with pytest.raises(InputError) as caught:
            UpdateFile.open(tmp_path / name)
        assert caught.value.code == code


# --- lies ---

_, OTHER_ROWS = layout_rows({"v": np.zeros(100, np.float32)})
ROW = [b"w", 1, [100]]
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "2^48 numbers, well declared": ({}, "update.cut"),
    "2^60 numbers": ({"tensors": [[b"w", 1, [2**60]]]}, "update.header"),
    "2^48 numbers twice": ({"tensors": [[b"v", 1, [2**48]], [b"w", 1, [2**48]]]}, "update.header"),
    "a negative dimension": ({"tensors": [[b"w", 1, [-1]]]}, "update.header"),
    "100 dimensions": ({"tensors": [[b"w", 1, [1] * 100]]}, "update.header"),
    "another layout": ({"tensors": OTHER_ROWS}, "update.header"),
    "tensors not sorted": ({"tensors": [[b"w", 1, [50]], [b"v", 1, [50]]]}, "update.header"),
    "a tensor twice": ({"tensors": [[b"w", 1, [50]], [b"w", 1, [50]]]}, "update.header"),
    "whole numbers": ({"tensors": [[b"w", 7, [100]]]}, "update.header"),
    "an unknown type": ({"tensors": [[b"w", 99, [100]]]}, "update.header"),
    "a type of 2^63": ({"tensors": [[b"w", 2**63, [100]]]}, "update.header"),
    "a row too long": ({"tensors": [[*ROW, 0]]}, "update.header"),
    "a row too short": ({"tensors": [ROW[:2]]}, "update.header"),
    "an unknown codec": ({"codec": "eden-5"}, "update.header"),
    "a codec of control characters": ({"codec": "\x1b[2J"}, "update.header"),
    "a seed where none is": ({"seed": bytes(32)}, "update.header"),
    "no seed where one is": ({"codec": "eden-1"}, "update.header"),
    "a short base": ({"base": bytes(31)}, "update.header"),
    "a short key": ({"author": bytes(31)}, "update.header"),
    "no samples": ({"samples": 0}, "update.header"),
    "2^60 samples": ({"samples": 2**60}, "update.header"),
    "a fraction of a sample": ({"samples": 1.5}, "update.header"),
    "local keys not sorted": ({"local": [b"b", b"a"]}, "update.header"),
    "a local key twice": ({"local": [b"a", b"a"]}, "update.header"),
    "one field more": ({"more": 0}, "update.header"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_lies_in_the_header(lie: str, tmp_path: Path) -> None:
    changes, code = LIES[lie]
    if not changes:
        whole = Layout.of_arrays({"w": np.broadcast_to(np.float32(0), (2**48,))})
        changes = {"tensors": [[b"w", 1, [2**48]]], "layout": whole.digest}
    tracemalloc.start()
    try:
        assert refused(tmp_path, built(header(**changes), [(0, NUMBERS)])) == code
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_lengths_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    raw = msgspec.msgpack.encode(list(header().values()))
    front = MAGIC + struct.pack("<I", 2**32 - 1)
    array_of_many = raw.replace(msgspec.msgpack.encode([ROW]), b"\xdd" + struct.pack(">I", 2**32 - 1), 1)
    tracemalloc.start()
    try:
        assert refused(tmp_path, front + raw) == "update.header"
        assert refused(tmp_path, MAGIC + struct.pack("<I", 2**24) + raw) == "update.cut"
        assert refused(tmp_path, built(array_of_many, [(0, NUMBERS)])) == "update.header"
        assert refused(tmp_path, built(b"\xc6" + struct.pack(">I", 2**32 - 1), [(0, NUMBERS)])) == "update.header"
        assert refused(tmp_path, built(b"\x91" * 100_000, [(0, NUMBERS)])) == "update.header"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_one_encoding_only(tmp_path: Path) -> None:
    raw = msgspec.msgpack.encode(list(header().values()))
    assert raw[0] == 0x98
    longer = b"\xdc\x00\x08" + raw[1:]
    assert refused(tmp_path, built(longer, [(0, NUMBERS)])) == "update.header"


BOMB = zstandard.ZstdCompressor(19).compress(bytes(2**28))
UNTOLD = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(400))
CHUNKS: dict[str, tuple[tuple[int, bytes], str]] = {
    "too short": ((0, NUMBERS[:-1]), "update.chunk"),
    "too long": ((0, NUMBERS + b"\0"), "update.chunk"),
    "an unknown form": ((2, NUMBERS), "update.chunk"),
    "compressed to more than it was": ((1, NUMBERS), "update.chunk"),
    "compressed to nothing": ((1, b""), "update.cut"),
    "no zstandard": ((1, b"nothing of the kind"), "update.chunk"),
    "a bomb": ((1, BOMB[:399]), "update.chunk"),
    "of another size": ((1, zstandard.compress(bytes(401))), "update.chunk"),
    "a size that is not told": ((1, UNTOLD), "update.chunk"),
    "a size that is not true": (
        (1, zstandard.compress(bytes(300)).replace(b"\x2c\x00", b"\x90\x00", 1)),
        "update.chunk",
    ),
    "two frames": ((1, zstandard.compress(NUMBERS) + zstandard.compress(NUMBERS)), "update.chunk"),
    "a frame cut": ((1, zstandard.compress(NUMBERS)[:-2]), "update.chunk"),
    "NaN": ((0, b"\xff" * 400), "update.codes"),
}


@pytest.mark.parametrize("what", CHUNKS)
def test_lies_in_a_chunk(what: str, tmp_path: Path) -> None:
    chunk, code = CHUNKS[what]
    tracemalloc.start()
    try:
        assert refused(tmp_path, built(header(), [chunk])) == code
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_bomb_of_the_right_size_is_no_larger_than_it_may_be(tmp_path: Path) -> None:
    """A frame that says the chunk's size and then goes on: what comes out is bounded by what was said."""
    count = UPDATE_CHUNK_ELEMENTS
    digest, rows = layout_rows({"w": np.broadcast_to(np.float32(0), (count,))})
    frame = bytearray(BOMB)
    assert struct.unpack("<I", frame[6:10]) == (2**28,) or struct.unpack("<I", frame[5:9]) == (2**28,)
    at = 6 if struct.unpack("<I", frame[6:10]) == (2**28,) else 5
    frame[at : at + 4] = struct.pack("<I", 4 * count)
    tracemalloc.start()
    try:
        assert refused(tmp_path, built(header(layout=digest, tensors=rows), [(1, bytes(frame))])) == "update.chunk"
        assert tracemalloc.get_traced_memory()[1] < 4 * count * 4
    finally:
        tracemalloc.stop()


def test_number_of_chunks(tmp_path: Path) -> None:
    count = UPDATE_CHUNK_ELEMENTS + 1
    digest, rows = layout_rows({"w": np.broadcast_to(np.float32(0), (count,))})
    head = header(layout=digest, tensors=rows)
    full, last = (1, zstandard.compress(bytes(4 * UPDATE_CHUNK_ELEMENTS))), (0, bytes(4))
    (tmp_path / "u.shoal").write_bytes(built(head, [full, last]))
    assert not read_all(tmp_path / "u.shoal").any()
    assert refused(tmp_path, built(head, [full])) == "update.cut"
    assert refused(tmp_path, built(head, [last, full])) == "update.chunk"
    assert refused(tmp_path, built(head, [full, last, last])) in ("update.format", "update.sum")


@pytest.mark.parametrize("name", CODECS)
def test_sizes_of_chunks_follow_from_the_layout(name: str) -> None:
    from shoal.diff.update_format import Chunks

    for elements in (1, UPDATE_CHUNK_ELEMENTS, UPDATE_CHUNK_ELEMENTS + 1, 5 * UPDATE_CHUNK_ELEMENTS + 777):
        chunks = Chunks(Grid.of(elements), CODECS[name], bytes(DIGEST_BYTES))
        tiles: list[Tile] = [chunks.tile(number) for number in range(chunks.count)]
        assert sum(t.count for t in tiles) == elements
        assert [chunks.size(number) for number in range(chunks.count)] == [CODECS[name].size(t) for t in tiles]
        assert sum(t.blocks.places for t in tiles) == Grid.of(elements).places
