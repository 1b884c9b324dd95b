"""Any bytes give a model or one documented error."""

from __future__ import annotations

from pathlib import Path

import corpus
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import InputError
from shoal.model import _onnx_index
from shoal.model.agree import differences
from shoal.model.file import ModelFile
from shoal.model.tensor import Role, Storage

SEEDS = [build().SerializeToString() for build in corpus.ORDINARY.values()]
SMALL = corpus.model(
    corpus.graph(
        corpus.tensor("w"),
        corpus.tensor("h", code=10, raw=None, more=corpus.field(5, b"\1\2")),
        nodes=(
            corpus.node("Constant", (), ("c",), corpus.attribute("value_floats", 6, corpus.field(7, b"\0" * 8))),
            corpus.node(
                "If", ("c",), ("y",), corpus.attribute("then_branch", 5, corpus.field(6, corpus.graph(corpus.tensor())))
            ),
        ),
        more=corpus.field(11, onnx.helper.make_tensor_value_info("x", 1, ["b", 2]).SerializeToString()),
    )
)


def walk(data: bytes) -> bool:
    """True if the bytes are a model; everything that the index promises about it is then looked at."""
    index = _onnx_index.Index("m", -1, 0, data)
    try:
        index.model()
    except InputError:
        return False
    for key, ref in index.tensors.items():
        assert ref.key == key
        start, stop = ref.message
        assert 0 <= start <= stop <= len(data)
        if ref.storage in (Storage.RAW, Storage.PACKED):
            assert start <= ref.offset <= ref.offset + ref.length <= stop
            assert ref.length == ref.nbytes
        if ref.storage is not Storage.EXTERNAL:
            attribute = ref.role in (Role.CONSTANT_FLOAT, Role.CONSTANT_FLOATS)
            values = _onnx_index.decode("m", -1, 0, start, stop, attribute, data)
            if isinstance(values, bytes):
                assert len(values) == ref.nbytes
                assert ref.storage is Storage.TYPED or values == data[ref.offset : ref.offset + ref.length]
            else:
                assert len(values) == ref.elements
    for graph in index.graphs.values():
        assert len(graph.digests) == 16 * graph.nodes
        for start, stop in zip(graph.spans[::2], graph.spans[1::2], strict=True):
            assert 0 <= start <= stop <= len(data)
            assert _onnx_index.node_parts("m", -1, 0, start, stop, data)[0]
    return True


def test_seeds_are_models() -> None:
    assert all(walk(seed) for seed in [SMALL, *SEEDS])


@pytest.mark.parametrize("mask", [0x01, 0x08, 0x80, 0xFF])
def test_every_byte_changed(mask: int) -> None:
    taken = refused = 0
    for data in (SMALL, corpus.perceptron(width=1).SerializeToString()):
        for at in range(len(data)):
            if walk(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]):
                taken += 1
            else:
                refused += 1
    assert taken and refused


def test_every_byte_changed_in_a_file(tmp_path: Path) -> None:
    """The same through the front door, and compared with the undamaged model."""
    path = tmp_path / "good.onnx"
    path.write_bytes(SMALL)
    outcomes = set()
    with ModelFile.open(path) as good:
        for at in range(len(SMALL)):
            (tmp_path / "bad.onnx").write_bytes(SMALL[:at] + bytes([SMALL[at] ^ 0x02]) + SMALL[at + 1 :])
            try:
                with ModelFile.open(tmp_path / "bad.onnx") as bad:
                    assert all(text.isprintable() for text in differences(good, bad))
                    for ref in bad.tensors.values():
                        bad.array(ref)
                outcomes.add("model")
            except InputError as error:
                assert str(error).isprintable()
                outcomes.add(error.code)
    assert {"model", "file.damaged", "tensor.dtype", "tensor.size"} <= outcomes


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_random_bytes(data: bytes) -> None:
    walk(data)


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=300, deadline=None)
def test_changed_models(seed: bytes, draw: st.DataObject) -> None:
    """Pieces of models cut out, repeated and overwritten."""
    data = bytearray(seed)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(data)))
        end = draw.draw(st.integers(at, min(len(data), at + 40)))
        data[at:end] = draw.draw(st.one_of(st.binary(max_size=12), st.just(bytes(data[at:end]) * 2)))
    walk(bytes(data))


@given(
    st.lists(st.tuples(st.integers(1, 30), st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=20))), max_size=12)
)
@settings(max_examples=500, deadline=None)
def test_random_fields(fields: list[tuple[int, int | bytes]]) -> None:
    """Fields that are sound, in messages that are not: as model, graph, node, attribute, tensor."""
    content = b"".join(corpus.field(number, value) for number, value in fields)
    walk(content)
    walk(corpus.model(content))
    walk(corpus.model(corpus.graph(nodes=(content,))))
    walk(corpus.model(corpus.graph(nodes=(corpus.node("Constant", (), ("y",), content),))))
    walk(corpus.model(corpus.graph(content)))
    walk(corpus.model(corpus.graph(more=corpus.field(15, content) + corpus.field(11, content))))


@given(st.binary(max_size=64))
@settings(max_examples=300, deadline=None)
def test_fields_of_any_bytes(data: bytes) -> None:
    try:
        found = _onnx_index.fields(data)
    except InputError:
        return
    assert all(number > 0 for number, _ in found)


def test_memory_for_many_small_pieces_is_refused_not_taken() -> None:
    """2**19 tensors, nodes with endless inputs, unpacked floats: bounded by counts, not by hope."""
    many = corpus.model(corpus.graph(*[corpus.tensor(f"{i}", (0,), raw=None) for i in range(2**18 + 1)]))
    with pytest.raises(InputError) as caught:
        _onnx_index.Index("m", -1, 0, many).model()
    assert caught.value.code == "tensor.too_many"
    inputs = corpus.field(1, "") * 500_000 + corpus.node()
    assert walk(corpus.model(corpus.graph(nodes=(inputs,))))
    attributes = corpus.node("Op", ("x",), ("y",), *[corpus.attribute(f"a{i}", 2) for i in range(2000)])
    assert not walk(corpus.model(corpus.graph(nodes=(attributes,))))
