"""Merging of files: the same bits as in memory, whatever the tiles and threads; refused without a trace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

import shoal
from shoal.errors import ArgumentError, InputError
from shoal.limits import DIGEST_CHUNK_BYTES
from shoal.merge import tiles
from shoal.merge.rules import TABLE
from shoal.model.file import ModelFile
from shoal.model.weights import save_weights

Array = npt.NDArray[Any]


def model(seed: int) -> dict[str, Array]:
    """Tensors around every boundary: a tile, a block of the Gram matrix, a chunk of the digest; many small ones."""
    rng = np.random.default_rng(seed)
    chunk = DIGEST_CHUNK_BYTES // 4
    sizes = {"large": 2 * chunk + 3, "chunk": chunk, "block": 65_536, "over": 65_537, "one": 1, "none": 0}
    tensors = {name: rng.normal(size=size).astype("f4") for name, size in sizes.items()}
    tensors |= {f"small{i}": rng.normal(size=(i, 3)).astype("f4") for i in range(40)}
    tensors |= {"wide": rng.normal(size=140_000), "half": rng.normal(size=70_001).astype("f2")}
    tensors |= {"brain": rng.normal(size=1001).astype(ml_dtypes.bfloat16), "count": np.array([3, 4])}
    return tensors


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[Path], Path, list[dict[str, Array]], dict[str, Array]]:
    folder = tmp_path_factory.mktemp("models")
    models, base = [model(seed) for seed in range(7)], model(99)
    paths = [folder / f"{i}.onnx" for i in range(7)]
    for path, tensors in zip([*paths, folder / "base.onnx"], [*models, base], strict=True):
        save_weights(tensors, path)
    return paths, folder / "base.onnx", models, base


def count_for(rule: Any) -> int:
    return 2 if rule.models[1] == 2 else 7


def assert_equal_to(path: Path, expected: dict[str, Array]) -> None:
    with shoal.load(path) as found:
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert np.asarray(found[key]).tobytes() == value.tobytes(), key


@pytest.mark.parametrize("rule", TABLE, ids=lambda r: r.name)
def test_files_give_the_bits_of_arrays(rule: Any, files: Any, tmp_path: Path) -> None:
    paths, base_path, models, base = files
    count = count_for(rule)
    expected = shoal.merge(models[:count], method=rule.name, base=base)
    report = shoal.merge_files(
        paths[:count], tmp_path / "out.onnx", shoal.MergeOptions(method=rule.name), base=base_path
    )
    assert_equal_to(tmp_path / "out.onnx", expected)
    with shoal.load(tmp_path / "out.onnx") as found:
        assert found.digest().hex() == report.digest
    assert report.tensors_merged == len(expected) - 1 and report.tensors_passed == 1
    assert report.passes <= rule.passes


@pytest.mark.parametrize("method", ["mean", "trimmed-mean", "geometric-median", "bulyan", "slerp", "ties", "dare"])
@pytest.mark.parametrize(("threads", "tile"), [(1, 2**20), (3, 2**20), (2, 2**14), (5, 2**16)])
def test_tiles_and_threads_change_no_bit(
    method: str, threads: int, tile: int, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, base_path, models, base = files
    count = 2 if method == "slerp" else 7
    monkeypatch.setattr(tiles, "TILE_BYTES", tile)
    options = shoal.MergeOptions(method=method, threads=threads)
    shoal.merge_files(paths[:count], tmp_path / "out.onnx", options, base=base_path)
    assert_equal_to(tmp_path / "out.onnx", shoal.merge(models[:count], method=method, base=base, threads=2))


def test_more_models_than_fit_into_the_buffers(files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for few models a Gram matrix is put together from parts, and every tile is small."""
    from shoal.merge import runs

    paths, _, models, _ = files
    for module in (tiles, runs):
        monkeypatch.setattr(module, "STREAM_BYTES_MAX", DIGEST_CHUNK_BYTES + 4 * 65_536 * 8)
    for method in ("mean", "krum", "geometric-median"):
        shoal.merge_files(paths, tmp_path / "out.onnx", shoal.MergeOptions(method=method, threads=4))
        assert_equal_to(tmp_path / "out.onnx", shoal.merge(models, method=method))


@pytest.mark.parametrize("method", ["mean", "median", "krum", "ties"])
@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_bad_number_is_named_and_nothing_is_written(
    method: str, threads: int, files: Any, tmp_path: Path
) -> None:
    paths, base_path, models, _ = files
    bad = {key: value.copy() for key, value in models[2].items()}
    bad["small7"][6, 2] = np.nan
    bad["small9"][0, 0] = np.inf
    save_weights(bad, tmp_path / "bad.onnx")
    (tmp_path / "out.onnx").write_bytes(b"old")
    options = shoal.MergeOptions(method=method, threads=threads)
    with pytest.raises(InputError) as caught:
        shoal.merge_files([*paths[:4], tmp_path / "bad.onnx"], tmp_path / "out.onnx", options, base=base_path)
    assert caught.value.code == "tensor.nonfinite"
    assert "bad.onnx: tensor small7 has NaN at element 20 of 21" in str(caught.value)
    assert (tmp_path / "out.onnx").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.onnx", "out.onnx"]


def test_a_model_of_weight_zero_may_hold_anything_finite_or_not(files: Any, tmp_path: Path) -> None:
    paths, _, models, _ = files
    bad = {key: value.copy() for key, value in models[2].items()}
    bad["small7"][6, 2] = np.nan
    bad["count"] += 1
    save_weights(bad, tmp_path / "bad.onnx")
    for order in ([tmp_path / "bad.onnx", *paths[:2]], [*paths[:2], tmp_path / "bad.onnx"]):
        weights = [0.0 if path.name == "bad.onnx" else 1.0 for path in order]
        shoal.merge_files(order, tmp_path / "out.onnx", shoal.MergeOptions(weights=weights))
        assert_equal_to(tmp_path / "out.onnx", shoal.merge(models[:2]))


def test_the_output_may_be_an_input(files: Any, tmp_path: Path) -> None:
    _, _, models, _ = files
    for i in range(2):
        save_weights(models[i], tmp_path / f"{i}.onnx")
    shoal.merge_files([tmp_path / "0.onnx", tmp_path / "1.onnx"], tmp_path / "1.onnx")
    assert_equal_to(tmp_path / "1.onnx", shoal.merge(models[:2]))
    assert_equal_to(tmp_path / "0.onnx", models[0])


def test_excluded_tensors_and_whole_numbers(files: Any, tmp_path: Path) -> None:
    paths, _, models, _ = files
    other = {**models[1], "count": np.array([9, 1])}
    save_weights(other, tmp_path / "other.onnx")
    both = [paths[0], tmp_path / "other.onnx"]
    with pytest.raises(InputError, match=r"other.onnx: tensor count of int64.*9 at element 0"):
        shoal.merge_files(both, tmp_path / "out.onnx")
    for integers in ("first", "max"):
        options = shoal.MergeOptions(integers=integers, exclude=("small*",))  # type: ignore[arg-type]
        report = shoal.merge_files(both, tmp_path / "out.onnx", options)
        assert report.tensors_local == 40
        assert_equal_to(tmp_path / "out.onnx", shoal.merge([models[0], other], integers=integers, exclude=["small*"]))  # type: ignore[arg-type]


def test_paths_and_models_in_the_library(files: Any, tmp_path: Path) -> None:
    paths, _, models, _ = files
    expected = shoal.merge(models[:3], weights=[1, 2, 3])
    found = shoal.merge(paths[:3], weights=[1, 2, 3], out=tmp_path / "out.onnx")
    loaded = shoal.merge([shoal.load(path) for path in paths[:3]], weights=[1, 2, 3])
    for key, value in expected.items():
        assert np.asarray(found[key]).tobytes() == value.tobytes() == np.asarray(loaded[key]).tobytes()
    with pytest.raises(ArgumentError, match="out is a NoneType"):
        shoal.merge(paths[:3])
    with pytest.raises(ArgumentError, match="base is a dict"):
        shoal.merge(paths[:3], out=tmp_path / "x.onnx", base=models[0])


def test_assigned_values_of_a_model_are_merged(files: Any) -> None:
    paths, _, models, _ = files
    first, second = shoal.load(paths[0]), shoal.load(paths[1])
    second["wide"] = models[1]["wide"] * 2
    found = shoal.merge([first, second])["wide"]
    assert found.tobytes() == shoal.merge([models[0]["wide"], models[1]["wide"] * 2]).tobytes()


def graph(
    path: Path, values: dict[str, Array], *, scale: float = 0.5, strings: tuple[bytes, ...] = (b"a", b"b")
) -> Path:
    """A graph with a quantisation scale, strings, a Constant node, a sparse initialiser and an int4 tensor."""
    make = onnx.helper
    nodes = [
        make.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
        make.make_node("DequantizeLinear", ["q", "scale"], ["d"]),
        make.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(values["c"])),
        make.make_node("Add", ["d", "c"], ["e"]),
        make.make_node("Add", ["e", "w"], ["y"]),
    ]
    tensors = [
        onnx.numpy_helper.from_array(values["w"], "w"),
        onnx.numpy_helper.from_array(np.array(scale, np.float32), "scale"),
        make.make_tensor("words", onnx.TensorProto.STRING, [len(strings)], list(strings)),
        make.make_tensor("nibbles", onnx.TensorProto.INT4, [3], [1, -2, 3]),
    ]
    built = make.make_graph(
        nodes, "g", [make.make_tensor_value_info("x", 1, [4])], [make.make_tensor_value_info("y", 1, [4])], tensors
    )
    sparse = make.make_sparse_tensor(
        onnx.numpy_helper.from_array(values["s"], "s"),
        onnx.numpy_helper.from_array(np.arange(len(values["s"]), dtype=np.int64), "s_indices"),
        [10],
    )
    built.sparse_initializer.append(sparse)
    onnx.save(make.make_model(built, opset_imports=[make.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_a_graph_with_everything(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    values = [{k: rng.normal(size=n).astype("f4") for k, n in (("w", 4), ("c", 4), ("s", 3))} for _ in range(3)]
    paths = [graph(tmp_path / f"{i}.onnx", v) for i, v in enumerate(values)]
    report = shoal.merge_files(paths, tmp_path / "out.onnx")
    merged = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(merged, full_check=True)
    mean = shoal.merge(values)
    assert onnx.numpy_helper.to_array(merged.graph.initializer[0]).tobytes() == mean["w"].tobytes()
    assert onnx.numpy_helper.to_array(merged.graph.node[2].attribute[0].t).tobytes() == mean["c"].tobytes()
    assert onnx.numpy_helper.to_array(merged.graph.sparse_initializer[0].values).tobytes() == mean["s"].tobytes()
    assert report.tensors_merged == 3


def test_scales_and_strings_that_differ_are_refused(tmp_path: Path) -> None:
    values = {"w": np.ones(4, "f4"), "c": np.ones(4, "f4"), "s": np.ones(3, "f4")}
    first = graph(tmp_path / "0.onnx", values)
    for name, other, code in [
        ("scale", graph(tmp_path / "1.onnx", values, scale=0.25), "tensor.scales"),
        ("words", graph(tmp_path / "2.onnx", values, strings=(b"a", b"c")), "tensor.differs"),
    ]:
        for integers in ("require-equal", "first", "max"):
            with pytest.raises(InputError, match=name) as caught:
                shoal.merge_files([first, other], tmp_path / "out.onnx", shoal.MergeOptions(integers=integers))  # type: ignore[arg-type]
            assert caught.value.code == code and other.name in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


def test_an_interrupt_leaves_no_trace(files: Any, tmp_path: Path) -> None:
    paths, *_ = files

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    for threads in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            shoal.merge_files(paths, tmp_path / "out.onnx", shoal.MergeOptions(progress=interrupt, threads=threads))
        assert list(tmp_path.iterdir()) == []


def outside(folder: Path, name: str, seed: int) -> Path:
    """A model with external data, written by the onnx library."""
    weight = onnx.numpy_helper.from_array(np.random.default_rng(seed).normal(size=300).astype("f4"), "w")
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [300])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [value], [weight])
    path = folder / f"{name}.onnx"
    onnx.save(onnx.helper.make_model(graph), path, save_as_external_data=True, location=f"{name}.bin", size_threshold=0)
    return path


def test_an_input_that_is_replaced_again_and_again_leaves_no_old_data_behind(tmp_path: Path) -> None:
    """Each site's loop: merge my model with a peer's into my model.  Disk use must not grow with the rounds."""
    mine, peer, other = (outside(tmp_path, name, i) for i, name in enumerate("abc"))
    shoal.merge_files([mine, peer], mine)
    for _ in range(3):
        shoal.merge_files([mine, peer, other], mine)
    ours = [name for name in os.listdir(tmp_path) if name.startswith("a.onnx.")]
    assert len(ours) == 1
    with ModelFile.open(mine) as file:
        assert file.data_files() == {str(tmp_path / ours[0])}


def test_data_that_another_input_needs_stay_when_a_model_is_replaced(tmp_path: Path) -> None:
    mine, peer = (outside(tmp_path, name, i) for i, name in enumerate("ab"))
    shoal.merge_files([mine, peer], mine)
    shutil.copy(mine, tmp_path / "copy.onnx")
    shoal.merge_files([mine, peer, tmp_path / "copy.onnx"], mine)
    for path in (mine, tmp_path / "copy.onnx"):
        with ModelFile.open(path) as file:
            assert all(os.path.exists(data) for data in file.data_files())
