"""Where everything of an output lies: the template's bytes, the replaced tensors' bytes, and the data file's.

Pure: it turns tensor references into edits of the template and positions in the two output files.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from shoal.errors import ArgumentError, shown
from shoal.model.digest import encode_key
from shoal.model.splice import Edit, Layout, Read, Slot, encode_varint, splice
from shoal.model.tensor import Role, Storage, TensorRef

#: hexadecimal digits in the name of a data file that tell one version of it from another.
VERSION_DIGITS = 16
#: tensors in a data file start at multiples of this many bytes: one cache line, and the widest vector there is.
ALIGNMENT = 64
#: large ones start at a page, so that a runtime can map them in place.
ALIGNMENT_LARGE = 4096
LARGE_BYTES = 2**20

# Field numbers of onnx.proto: TensorProto, and AttributeProto for value_float and value_floats.
RAW_DATA = 9
EXTERNAL_DATA = 13
DATA_LOCATION = 14
ATTRIBUTE_F = 2
ATTRIBUTE_FLOATS = 7

_LEN, _I32 = 2, 5


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of one tensor in the output: in the data file or in the model file."""

    outside: bool
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Placement:
    """What an output looks like before a tensor is written.

    layout     the model file
    places     key -> place, of every replaced tensor and of every tensor in the data file
    data_size  bytes of the data file; None if there is none
    versions   offsets in the model file of the VERSION_DIGITS that complete each data file name
    """

    layout: Layout
    places: dict[str, Place]
    data_size: int | None
    versions: tuple[int, ...]


def place(
    tensors: Collection[TensorRef], replaced: Collection[str], read: Read, size: int, data_stem: bytes
) -> Placement:
    """Place the tensors of a template of ``size`` bytes.

    replaced   keys of the tensors whose bytes change
    read       read(offset, n) -> bytes of the template
    data_stem  name of the data file up to its version
    raises     ArgumentError  if a replaced tensor cannot be stored as plain bytes
    """
    ordered = sorted(tensors, key=lambda ref: ref.message[0])
    outside, data_size = line_up((ref.key, ref.nbytes) for ref in ordered if ref.storage is Storage.EXTERNAL)
    edits: list[Edit] = []
    for ref in ordered:
        if ref.storage is Storage.EXTERNAL:
            edits += _external_edits(ref, outside[ref.key], data_stem)
        elif ref.key in replaced:
            edits += _embedded_edits(ref)
    layout = splice(read, size, edits)
    holes = layout.holes()
    places = dict(outside)
    for ref in ordered:
        if ref.key in replaced and ref.storage is not Storage.EXTERNAL:
            places[ref.key] = Place(False, holes.get(("tensor", ref.key), 0), ref.nbytes)
    versions = tuple(holes["version", key] for key in outside)
    return Placement(layout, places, data_size if outside else None, versions)


def line_up(sizes: Iterable[tuple[str, int]]) -> tuple[dict[str, Place], int]:
    """Place tensors one behind the other in a data file; return their places and the file's size."""
    places, end = {}, 0
    for key, nbytes in sizes:
        alignment = ALIGNMENT_LARGE if nbytes >= LARGE_BYTES else ALIGNMENT
        offset = -(-end // alignment) * alignment
        places[key] = Place(True, offset, nbytes)
        end = offset + nbytes
    return places, end


def data_version(places: Mapping[str, Place], digest: bytes) -> str:
    """Return the digits that tell a data file from every other one of the same output.

    They follow from the model's digest and from where each tensor lies, so equal names mean equal bytes.
    """
    whole = hashlib.sha256(b"shoal data file 1\n" + digest)
    for key, at in places.items():
        if at.outside:
            name = encode_key(key)
            whole.update(struct.pack(f"<Q{len(name)}sQQ", len(name), name, at.offset, at.nbytes))
    return whole.hexdigest()[:VERSION_DIGITS]


def _embedded_edits(ref: TensorRef) -> Iterator[Edit]:
    """Give a replaced tensor a slot for its bytes: where they are now if they lie in one piece, else a new field."""
    if ref.dtype.numpy is None or ref.dtype.bits % 8:
        raise ArgumentError("write.dtype", f"tensor {shown(ref.key)} of {ref.dtype.name} cannot be replaced")
    if ref.nbytes == 0:
        return
    slot = Slot(("tensor", ref.key), ref.nbytes)
    if ref.storage is not Storage.TYPED:
        yield Edit(ref.offset, ref.offset + ref.length, (slot,), ref.enclosing)
        return
    field = _value_field(ref)
    old = sorted((f.start, f.stop) for f in ref.fields if f.number not in (EXTERNAL_DATA, DATA_LOCATION))
    if not old:
        yield Edit(ref.message[1], ref.message[1], (field, slot), ref.enclosing)
        return
    yield Edit(*old[0], (field, slot), ref.enclosing)
    for start, stop in old[1:]:
        yield Edit(start, stop, (b"",), ref.enclosing)


def _value_field(ref: TensorRef) -> bytes:
    """Return tag and length of the field that will hold a tensor's bytes."""
    if ref.role is Role.CONSTANT_FLOAT:
        return encode_varint(ATTRIBUTE_F << 3 | _I32)
    number = ATTRIBUTE_FLOATS if ref.role is Role.CONSTANT_FLOATS else RAW_DATA
    return encode_varint(number << 3 | _LEN) + encode_varint(ref.nbytes)


def _external_edits(ref: TensorRef, place: Place, data_stem: bytes) -> Iterator[Edit]:
    """Rewrite location, offset and length; a checksum of the old bytes goes."""
    old = sorted((f.start, f.stop) for f in ref.fields if f.number == EXTERNAL_DATA)
    new = external_entries(ref.key, place, data_stem)
    for number, (start, stop) in enumerate(old):
        yield Edit(start, stop, new if number == 0 else (b"",), ref.enclosing)


def external_entries(key: str, place: Place, data_stem: bytes) -> tuple[bytes | Slot, ...]:
    """Return the three external_data fields of a tensor in a data file; the file's version is a slot."""
    ending = b".data"
    location = len(data_stem) + VERSION_DIGITS + len(ending)
    head = length_delimited_head(1, 8) + b"location" + length_delimited_head(2, location)
    entry = length_delimited_head(EXTERNAL_DATA, len(head) + location) + head + data_stem
    rest = b"".join(
        length_delimited(EXTERNAL_DATA, length_delimited(1, name) + length_delimited(2, str(value).encode()))
        for name, value in ((b"offset", place.offset), (b"length", place.nbytes))
    )
    return (entry, Slot(("version", key), VERSION_DIGITS), ending + rest)


def length_delimited_head(number: int, length: int) -> bytes:
    """Return tag and length of a length-delimited field."""
    return encode_varint(number << 3 | _LEN) + encode_varint(length)


def length_delimited(number: int, content: bytes) -> bytes:
    """Return a whole length-delimited field."""
    return length_delimited_head(number, len(content)) + content
