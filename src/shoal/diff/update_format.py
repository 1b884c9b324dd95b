"""The parts of an update file that writer and reader share (docs/FORMAT.md, "Update files").

    magic    "shoal-update 1\\n"
    header   u32 length; MessagePack array (`Header`)
    chunks   each: a head (u32 length, u8 form: 0 as coded, 1 zstandard, SHA-256 of the bytes that follow); those bytes
    end      SHA-256 of everything before it but the chunks' bytes; Ed25519 signature if the header has an author

Chunk i holds elements [i * UPDATE_CHUNK_ELEMENTS, ...) of the flat vector.  Checksums find accidents; against forgers
only the signature helps.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from shoal.diff.codec import Codec, Tile
from shoal.diff.grid import Grid
from shoal.domain import DIGEST_BYTES, hashed
from shoal.kernels.blocks import Blocks
from shoal.limits import DIMS_MAX, ELEMENTS_MAX, NAME_BYTES_MAX, SAMPLES_MAX, TENSORS_MAX, UPDATE_CHUNK_ELEMENTS
from shoal.model.digest import encode_key
from shoal.model.layout import Layout

MAGIC: Final = b"shoal-update 1\n"
#: how every version's first line begins
NAME: Final = b"shoal-update "
_DOMAIN: Final = b"shoal-update/v1/"
SIGNED: Final = b"shoal update signature 1\n"
LENGTH: Final = struct.Struct("<I")
HEAD: Final = struct.Struct("<IB32s")
AS_CODED, ZSTANDARD = 0, 1
KEY_BYTES, SIGNATURE_BYTES = 32, 64
_Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
_Key = Annotated[bytes, Meta(max_length=2 * NAME_BYTES_MAX)]
_Dim = Annotated[int, Meta(ge=0, le=ELEMENTS_MAX)]

#: (public key, signature, message) -> whether it holds
SignatureCheck = Callable[[bytes, bytes, bytes], bool]


class Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A tensor of the layout: its key in UTF-8, number of its type in ONNX, shape."""

    key: _Key
    dtype: int
    dims: Annotated[tuple[_Dim, ...], Meta(max_length=DIMS_MAX)]


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the file says about itself.

    base     digest of the base model, but for the tensors in ``local``
    layout   digest of the layout
    codec    name in `codec.CODECS`
    seed     32 bytes if the codec rotates, else none
    samples  that the new model was trained on; None: not told
    author   Ed25519 public key of who signed the file; empty: nobody
    tensors  the layout, in its order
    local    keys of the tensors that the update leaves alone, whatever they are; sorted
    """

    base: _Digest
    layout: _Digest
    codec: Annotated[str, Meta(max_length=32)]
    seed: Annotated[bytes, Meta(max_length=DIGEST_BYTES)]
    samples: Annotated[int, Meta(ge=1, le=SAMPLES_MAX)] | None
    author: Annotated[bytes, Meta(max_length=KEY_BYTES)]
    tensors: Annotated[tuple[Row, ...], Meta(max_length=TENSORS_MAX)]
    local: Annotated[tuple[_Key, ...], Meta(max_length=TENSORS_MAX)]


@dataclass(frozen=True, repr=False)
class Signer:
    """Who signs an update.

    public  Ed25519 public key, 32 bytes
    sign    message -> signature, 64 bytes
    """

    public: bytes
    sign: Callable[[bytes], bytes]


def rows_of(layout: Layout) -> tuple[Row, ...]:
    """A layout as a header has it."""
    return tuple(Row(encode_key(tensor.key), tensor.dtype.code, tensor.dims) for tensor in layout.tensors)


@dataclass(frozen=True)
class Chunks:
    """How the flat vector of a layout is cut and coded: the same for writer and reader.

    grid   of the vector
    codec  Codec
    seed   of the rotation
    """

    grid: Grid
    codec: Codec
    seed: bytes

    @cached_property
    def _signs_key(self) -> bytes:
        return hashed(_DOMAIN, "rotation", self.seed)

    @cached_property
    def _full_size(self) -> int:
        return self.codec.size(self.tile(0))

    @property
    def count(self) -> int:
        return -(-self.grid.elements // UPDATE_CHUNK_ELEMENTS)

    def elements(self, number: int) -> tuple[int, int]:
        """(first element, number of elements) of a chunk."""
        first = number * UPDATE_CHUNK_ELEMENTS
        return first, min(UPDATE_CHUNK_ELEMENTS, self.grid.elements - first)

    def tile(self, number: int) -> Tile:
        first, count = self.elements(number)
        return Tile(count, _blocks(self.grid, first, count), self._signs_key)

    def size(self, number: int) -> int:
        """Bytes of a chunk as coded."""
        if number + 1 < self.count and self.elements(number + 1)[0] <= self.grid.regular << self.grid.log:
            return self._full_size
        return self.codec.size(self.tile(number))


@lru_cache(maxsize=64)
def _blocks(grid: Grid, first: int, count: int) -> Blocks:
    """`Grid.within`, made once for the same chunk of several files."""
    return grid.within(first, count)


def framed(header: Header) -> bytes:
    """A header as it stands in the file."""
    raw = msgspec.msgpack.encode(header)
    return LENGTH.pack(len(raw)) + raw


def end_digest(front: bytes, heads: Iterable[bytes]) -> bytes:
    """What ends a file with this front (magic and header) and these heads of chunks."""
    whole = hashlib.sha256(front)
    for head in heads:
        whole.update(head)
    return whole.digest()
