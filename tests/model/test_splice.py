"""Splicing against a small protobuf builder, where each new file is also built from the tree that it stands for."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import ArgumentError, InputError
from shoal.limits import PROTO_BYTES_MAX
from shoal.model.splice import Copy, Edit, Hole, Layout, Literal, Slot, decode_varint, encode_varint, splice


@dataclass
class Message:
    """A length-delimited field: either nested messages or a leaf's bytes, and what the leaf shall become."""

    children: list[Message] = field(default_factory=list)
    leaf: bytes = b""
    becomes: bytes | None = None

    def content(self, new: bool) -> bytes:
        if self.children:
            return b"".join(child.whole(new) for child in self.children)
        return self.becomes if new and self.becomes is not None else self.leaf

    def whole(self, new: bool) -> bytes:
        content = self.content(new)
        return b"\x0a" + encode_varint(len(content)) + content

    def edits(self, at: int, enclosing: tuple[int, ...], as_slots: bool) -> list[Edit]:
        """Edits that turn the old bytes of this field, which starts at byte `at`, into the new ones."""
        length = len(self.content(False))
        inside = (*enclosing, at + 1)
        at += 1 + len(encode_varint(length))
        if not self.children:
            if self.becomes is None:
                return []
            new = (Slot(at, len(self.becomes)),) if as_slots else (self.becomes,)
            return [Edit(at, at + length, new, inside)]
        out = []
        for child in self.children:
            out += child.edits(at, inside, as_slots)
            at += len(child.whole(False))
        return out


def render(old: bytes, layout: Layout, fill: dict[object, bytes]) -> bytes:
    """Make the file that a layout describes, and check that its pieces touch."""
    out = b""
    for piece in layout.pieces:
        assert piece.at == len(out)
        match piece:
            case Copy():
                out += old[piece.start : piece.stop]
            case Literal():
                out += piece.data
            case Hole():
                assert len(fill[piece.slot.key]) == piece.slot.size
                out += fill[piece.slot.key]
    assert len(out) == layout.size
    return out


def reader(data: bytes):
    return lambda offset, n: data[offset : offset + n]


# 126-130 and 16382-16386 bytes straddle the widths of a varint.
SIZES = st.one_of(st.integers(0, 8), st.integers(120, 132), st.integers(16_376, 16_390))
LEAVES = st.builds(
    lambda old, new: Message(leaf=b"o" * old, becomes=None if new is None else b"n" * new),
    SIZES,
    st.one_of(st.none(), SIZES),
)
TREES = st.recursive(LEAVES, lambda inner: st.builds(Message, st.lists(inner, min_size=1, max_size=4)), max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(tree=TREES, as_slots=st.booleans())
def test_any_tree_with_any_leaves_changed_becomes_what_building_it_anew_gives(tree: Message, as_slots: bool) -> None:
    old = tree.whole(False)
    edits = tree.edits(0, (), as_slots)
    fill = {edit.start: b"n" * part.size for edit in edits for part in edit.content if isinstance(part, Slot)}
    layout = splice(reader(old), len(old), reversed(edits))
    assert render(old, layout, fill) == tree.whole(True)
    assert layout.holes().keys() == fill.keys()


def test_an_edit_of_the_same_size_changes_no_length_and_keeps_a_padded_varint() -> None:
    old = b"\x0a\x84\x00abcd"  # length 4, written in two bytes
    layout = splice(reader(old), len(old), [Edit(3, 5, (Slot("s", 2),), (1,))])
    assert render(old, layout, {"s": b"XY"}) == b"\x0a\x84\x00XYcd"


def test_a_changed_length_is_written_in_the_shortest_form_and_moves_the_outer_one() -> None:
    inner = b"\x0a\x84\x00abcd"
    old = b"\x0a" + encode_varint(len(inner)) + inner
    layout = splice(reader(old), len(old), [Edit(5, 9, (b"abcde",), (1, 3))])
    assert render(old, layout, {}) == b"\x0a\x07\x0a\x05abcde"


def test_growing_and_shrinking_by_the_same_amount_leaves_the_outer_length_alone() -> None:
    old = b"\x0a\x06" + b"\x0a\x01a" + b"\x0a\x01b"
    edits = [Edit(4, 5, (b"aa",), (1, 3)), Edit(7, 8, (b"",), (1, 6))]
    layout = splice(reader(old), len(old), edits)
    assert render(old, layout, {}) == b"\x0a\x06" + b"\x0a\x02aa" + b"\x0a\x00"


def test_insertions_at_one_place_keep_their_order() -> None:
    old = b"\x0a\x02ab"
    edits = [Edit(3, 3, (b"1",), (1,)), Edit(3, 3, (b"2",), (1,))]
    assert render(old, splice(reader(old), len(old), edits), {}) == b"\x0a\x04a12b"


def test_no_edits_copy_the_file_whole() -> None:
    assert splice(reader(b"abc"), 3, []) == Layout((Copy(0, 0, 3),), 3)
    assert splice(reader(b""), 0, []) == Layout((), 0)


@pytest.mark.parametrize(
    ("edits", "code"),
    [
        ([Edit(1, 4, (b"",), ()), Edit(3, 5, (b"",), ())], "splice.overlap"),
        ([Edit(1, 4, (b"",), ()), Edit(2, 2, (b"x",), ())], "splice.overlap"),
        ([Edit(1, 3, (b"x",), (1,))], "splice.overlap"),  # the edit lies on its own length
        ([Edit(6, 8, (b"",), ())], "splice.range"),
        ([Edit(-1, 2, (b"",), ())], "splice.range"),
        ([Edit(3, 4, (b"xx",), (1, 2)), Edit(4, 5, (b"xx",), (2,))], "splice.enclosing"),
        ([Edit(3, 4, (b"xx",), (2, 1))], "splice.enclosing"),
        ([Edit(0, 6, (b"",), (1,))], "splice.range"),  # takes more than the length says
    ],
)
def test_edits_that_make_no_sense_are_refused(edits: list[Edit], code: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        splice(reader(b"\x0a\x04abcd"), 6, edits)
    assert caught.value.code == code


def test_a_result_above_the_limit_of_protobuf_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        splice(reader(b"\x0a\x00"), 2, [Edit(2, 2, (Slot("s", PROTO_BYTES_MAX),), (1,))])
    assert caught.value.code == "model.too_large"


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2**31 - 1, 2**63, 2**64 - 1])
def test_varints_round_trip(value: int) -> None:
    data = encode_varint(value)
    assert decode_varint(data + b"\xff") == (value, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 10])
def test_a_varint_without_an_end_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        decode_varint(data)


@settings(max_examples=50, deadline=None)
@given(old=st.binary(max_size=300), new=st.binary(max_size=300), doc=st.text(max_size=200))
def test_onnx_reads_the_same_model_that_it_would_have_written(old: bytes, new: bytes, doc: str) -> None:
    """Grow or shrink one raw_data three messages deep; the onnx library must see just that change."""
    model = onnx.ModelProto(ir_version=10, doc_string=doc)
    model.graph.initializer.add(name="w", raw_data=b"<" + old + b">")
    data = model.SerializeToString()
    graph, tensor = model.graph.SerializeToString(), model.graph.initializer[0].SerializeToString()
    graph_at, tensor_at = data.index(graph), data.index(tensor)
    raw_at = tensor_at + tensor.index(b"<" + old + b">")
    width = [len(encode_varint(len(part))) for part in (graph, tensor, b"<" + old + b">")]
    lengths = (graph_at - width[0], tensor_at - width[1], raw_at - width[2])
    edit = Edit(raw_at + 1, raw_at + 1 + len(old), (new,), lengths)
    result = onnx.ModelProto.FromString(render(data, splice(reader(data), len(data), [edit]), {}))
    model.graph.initializer[0].raw_data = b"<" + new + b">"
    assert result == model
