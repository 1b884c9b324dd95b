"""From two models to an update and back: what comes out, what is refused, and that nothing is written then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from pairs import flat, load, nmse, read_all, save_pair, small, trained

from shoal.diff.apply import ApplyOptions, apply_updates
from shoal.diff.codec import CODECS
from shoal.diff.make import DiffOptions, make_update
from shoal.diff.measure import measure
from shoal.diff.update_file import UpdateFile
from shoal.errors import ArgumentError, InputError
from shoal.limits import UPDATE_CHUNK_ELEMENTS
from shoal.model.digest import model_digest
from shoal.model.file import ModelFile
from shoal.model.weights import save_weights

sys.path.append(str(Path(__file__).parents[1] / "model"))
from corpus import constants, control_flow, functions, save_external, sparse_weights

#: error of a whole update relative to its norm, squared, with room for chance in 700 numbers
BOUNDS = {
    "eden-1": 0.8, "eden-2": 0.2, "eden-3": 0.06, "eden-4": 0.02, "eden-8": 1e-4, "int4": 0.03, "int8": 2e-4,
    "float16": 1e-6, "bfloat16": 1e-5, "float32": 1e-13,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digest_of(path: Path | str) -> str:
    with ModelFile.open(path) as file:
        return model_digest(file).hex()


def refused(kind: type[Exception], call: Any, *words: Any) -> Any:
    with pytest.raises(kind) as caught:
        call(*words)
    assert "\n" not in str(caught.value)
    return caught.value


# --- what comes out ---


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip_of_every_type(codec: str, folder: Path) -> None:
    base = {k: v for k, v in small().items() if k not in ("half", "brain")}
    new = trained(base)
    save_pair(folder, base, new)
    made = make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions(codec, seed=1))
    done = apply_updates("base.onnx", ["u.shoal"], "out.onnx")
    out = load(folder / "out.onnx")
    assert {k: (v.dtype, v.shape) for k, v in out.items()} == {k: (v.dtype, v.shape) for k, v in base.items()}
    assert nmse(flat(out) - flat(base), flat(new) - flat(base)) < BOUNDS[codec]
    assert made.base_digest == done.base_digest == digest_of("base.onnx") and done.digest == digest_of("out.onnx")
    assert made.file_bytes == (folder / "u.shoal").stat().st_size
    assert (made.tensors, made.numbers, done.tensors_kept, done.weighted_by) == (4, 528, 1, "equal")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_types_are_rounded_once(dtype: Any, folder: Path) -> None:
    base = {"w": np.random.default_rng(1).normal(size=3000).astype(dtype)}
    new = trained(base, size=0.3)
    save_pair(folder, base, new)
    for codec in ("float32", "eden-8"):
        make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions(codec, seed=1))
        apply_updates("base.onnx", ["u.shoal"], "out.onnx")
        with UpdateFile.open("u.shoal") as file:
            decoded = np.empty(3000, np.float32)
            file.read(0, decoded)
        wanted = (base["w"].astype(np.float64) + decoded).astype(np.float32 if dtype != np.float16 else np.float64)
        out = load(folder / "out.onnx")["w"]
        assert np.array_equal(out, wanted.astype(dtype))
        assert codec != "float32" or np.array_equal(out, new["w"])


def test_exact_update_gives_the_new_model_but_for_rounding(folder: Path) -> None:
    base = {"w": np.random.default_rng(1).normal(size=(300, 40)).astype(np.float32)}
    new = {"w": np.random.default_rng(2).normal(size=(300, 40)).astype(np.float32)}
    save_pair(folder, base, new)
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("float32"))
    apply_updates("base.onnx", ["u.shoal"], "out.onnx")
    out, step = load(folder / "out.onnx")["w"], np.spacing(np.abs(base["w"]) + np.abs(new["w"]))
    assert (np.abs(out - new["w"]) <= step).all()


def test_float64_is_subtracted_in_float64(folder: Path) -> None:
    base = {"w": 1e6 + np.random.default_rng(1).normal(size=500)}
    new = {"w": base["w"] + 1e-5 * np.random.default_rng(2).normal(size=500)}
    save_pair(folder, base, new)
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("float32"))
    assert np.array_equal(read_all(folder / "u.shoal"), (new["w"] - base["w"]).astype(np.float32))


@pytest.mark.parametrize("make", [control_flow, functions, constants, sparse_weights])
def test_graphs_pass_through_byte_for_byte(make: Any, folder: Path) -> None:
    """Initialisers of inner graphs, functions, Constant nodes, sparse tensors; all else as it was."""
    content = make()
    onnx.save(content, "base.onnx")
    with ModelFile.open("base.onnx") as file:
        floats = [key for key, ref in file.tensors.items() if ref.dtype.merged]
        assert floats
    import shoal

    model = shoal.load("base.onnx")
    for key in floats:
        model[key] = (model[key].astype(np.float64) + 0.5).astype(model[key].dtype)
    model.save("new.onnx")
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("float32"))
    done = apply_updates("base.onnx", ["u.shoal"], "out.onnx")
    assert done.digest == digest_of("new.onnx") == digest_of("out.onnx")
    assert Path("out.onnx").read_bytes() == Path("new.onnx").read_bytes()


def test_external_data(folder: Path) -> None:
    def content(shift: float) -> onnx.ModelProto:
        values = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32) + np.float32(shift)
        graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(values, "w")])
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)

    save_external(content(0), folder / "base.onnx", one_file=True)
    save_external(content(1), folder / "new.onnx", one_file=True)
    base_data = {p.name: p.read_bytes() for p in folder.glob("base*")}
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("float32"))
    apply_updates("base.onnx", ["u.shoal"], "out.onnx")
    assert np.abs(load(folder / "out.onnx")["w"] - load(folder / "new.onnx")["w"]).max() < 1e-6
    assert {p.name: p.read_bytes() for p in folder.glob("base*")} == base_data
    apply_updates("base.onnx", ["u.shoal"], "base.onnx")
    assert np.array_equal(load(folder / "out.onnx")["w"], load(folder / "base.onnx")["w"])


def large(seed: int = 0) -> dict[str, np.ndarray]:
    """Four chunks whose borders lie inside tensors of three types."""
    rng, count = np.random.default_rng(seed), UPDATE_CHUNK_ELEMENTS
    return {
        "a": rng.normal(size=count + 12345).astype(np.float32),
        "b": rng.normal(size=count).astype(np.float16),
        **{f"c{k}": rng.normal(size=k).astype(np.float32) for k in range(40)},
        "d": rng.normal(size=count // 2 + 7),
        "e": rng.normal(size=count // 2).astype(np.float32),
    }


@pytest.mark.parametrize("codec", ["int8", "float32", "eden-2"])
def test_same_bytes_for_any_number_of_threads(codec: str, folder: Path) -> None:
    base = large()
    save_pair(folder, base, trained(base))
    files, outs = set(), set()
    for threads in (1, 2, 5):
        made = make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions(codec, seed=1, threads=threads))
        done = apply_updates("base.onnx", ["u.shoal", "u.shoal"], "out.onnx", ApplyOptions([1, 2], threads=threads))
        assert made.base_digest == digest_of("base.onnx") and done.digest == digest_of("out.onnx")
        files.add(Path("u.shoal").read_bytes())
        outs.add(Path("out.onnx").read_bytes())
    assert len(files) == len(outs) == 1
    assert made.file_bytes < sum(v.nbytes for v in base.values())


def test_unchanged_tensors_cost_next_to_nothing(folder: Path) -> None:
    base = {"frozen": np.random.default_rng(1).normal(size=2**20).astype(np.float32), "head": np.ones(64, np.float32)}
    save_pair(folder, base, base | {"head": base["head"] + np.float32(1)})
    for codec in ("eden-4", "int8", "float32"):
        assert make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions(codec)).file_bytes < 5000
        apply_updates("base.onnx", ["u.shoal"], "out.onnx")
        assert np.array_equal(load(folder / "out.onnx")["frozen"], base["frozen"])


# --- the mean ---


def three(folder: Path, codec: str = "float32", samples: tuple[int | None, ...] = (None, None, None)) -> list[str]:
    """Updates of three sites on one base; u0.shoal, u1.shoal, u2.shoal."""
    base = small()
    save_weights(base, folder / "base.onnx")
    for k, count in enumerate(samples):
        save_weights(trained(base, seed=k + 1, size=0.3), folder / f"new{k}.onnx")
        make_update("base.onnx", f"new{k}.onnx", f"u{k}.shoal", DiffOptions(codec, samples=count, seed=k))
    return ["u0.shoal", "u1.shoal", "u2.shoal"]


@pytest.mark.parametrize(
    ("samples", "weights", "used", "by"),
    [
        ((None, None, None), None, (1, 1, 1), "equal"),
        ((5, 3, None), None, (1, 1, 1), "equal"),
        ((5, 3, 2), None, (5, 3, 2), "samples"),
        ((5, 3, 2), (1, 0, 7), (1, 0, 7), "weights"),
        ((None, None, None), (1e-300, 3e-300, 0), (1, 3, 0), "weights"),
        ((None, None, None), (1e308, 1e308, 1e308), (1, 1, 1), "weights"),
    ],
)
def test_weights(samples: Any, weights: Any, used: Any, by: str, folder: Path) -> None:
    updates = three(folder, samples=samples)
    done = apply_updates("base.onnx", updates, "out.onnx", ApplyOptions(weights))
    assert done.weighted_by == by
    base, out = load(folder / "base.onnx"), load(folder / "out.onnx")
    moves = [flat(load(folder / f"new{k}.onnx")) - flat(base) for k in range(3)]
    mean = np.average(moves, axis=0, weights=used)
    exact = np.concatenate(
        [np.full(base[k].size, base[k].dtype in (np.float32, np.float64)) for k in sorted(base) if k != "count"]
    )
    assert np.abs(flat(out) - flat(base) - mean)[exact].max() < 1e-6
    assert np.abs(flat(out) - flat(base) - mean)[~exact].max() < 2e-2


def test_order_of_the_updates_does_not_matter(folder: Path) -> None:
    updates = three(folder, samples=(5, 3, 2))
    apply_updates("base.onnx", updates, "a.onnx")
    apply_updates("base.onnx", updates[::-1], "b.onnx")
    apply_updates("base.onnx", [updates[1], updates[0]], "c.onnx", ApplyOptions([3, 5]))
    apply_updates("base.onnx", updates, "d.onnx", ApplyOptions([5, 3, 0]))
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes() != Path("c.onnx").read_bytes()
    assert Path("c.onnx").read_bytes() == Path("d.onnx").read_bytes()


def test_mean_of_updates_is_the_update_of_the_mean(folder: Path) -> None:
    updates = three(folder, "eden-8")
    make_update("base.onnx", "new0.onnx", "u0.shoal", DiffOptions("int8"))  # codecs may differ
    apply_updates("base.onnx", updates, "out.onnx")
    base, out = (
        flat({k: v for k, v in load(folder / n).items() if v.dtype in (np.float32, np.float64)})
        for n in ("base.onnx", "out.onnx")
    )
    news = [
        flat({k: v for k, v in load(folder / f"new{k}.onnx").items() if v.dtype in (np.float32, np.float64)})
        for k in range(3)
    ]
    assert nmse(out - base, np.mean(news, axis=0) - base) < 3e-4


def test_local_tensors_may_differ_between_sites(folder: Path) -> None:
    """FedBN: each site keeps its own normalisation; an update fits every site's base."""
    base = small()
    other = base | {"one": base["one"] + np.float32(5), "count": base["count"] + 1}
    save_pair(folder, base, trained(base))
    save_weights(other, "other.onnx")
    made = make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("float32", exclude=("one", "count")))
    done = apply_updates("other.onnx", ["u.shoal"], "out.onnx")
    out = load(folder / "out.onnx")
    assert out["one"] == other["one"] and np.array_equal(out["count"], other["count"])
    assert np.abs(out["w"] - trained(base)["w"]).max() < 1e-6
    assert made.base_digest == done.base_digest != digest_of("base.onnx") and made.tensors_local == 2
    assert done.digest == digest_of("out.onnx")


def test_include(folder: Path) -> None:
    base = small()
    save_pair(folder, base, trained(base))
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("float32", include=("w*",)))
    apply_updates("base.onnx", ["u.shoal"], "out.onnx")
    changed = {k for k, v in load(folder / "out.onnx").items() if not np.array_equal(v, base[k])}
    assert changed == {"w", "wide"}


def test_measure(folder: Path) -> None:
    base = large()
    new = trained(base)
    save_pair(folder, base, new)
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("int4"))
    with UpdateFile.open("u.shoal") as update:
        fits = [measure(update, "base.onnx", "new.onnx", threads) for threads in (1, 3)]
        assert fits[0] == fits[1]
        wanted = flat(new) - flat(base)
        assert fits[0].norm == pytest.approx(np.linalg.norm(wanted), rel=1e-6)
        assert fits[0].nmse == pytest.approx(nmse(read_all(Path("u.shoal")), wanted), rel=1e-3)
        error = refused(InputError, measure, update, "new.onnx", "base.onnx")
        assert error.code == "update.base"
    make_update("base.onnx", "base.onnx", "same.shoal", DiffOptions("int4"))
    with UpdateFile.open("same.shoal") as update:
        assert measure(update, "base.onnx", "base.onnx").nmse is None


# --- what is refused ---


def unwritten(folder: Path, call: Any, *words: Any) -> InputError:
    """The error of a call whose output is old.bin, which must stay as it is, with nothing beside it."""
    Path("old.bin").write_bytes(b"old")
    before = sorted(p.name for p in folder.iterdir())
    error = refused(InputError, call, *words)
    assert Path("old.bin").read_bytes() == b"old" and sorted(p.name for p in folder.iterdir()) == before
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize("codec", ["eden-1", "eden-8", "int4", "int8", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("key", ["w", "half", "brain", "wide"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_not_finite(codec: str, key: str, value: float, folder: Path) -> None:
    base = small()
    new = trained(base)
    new[key] = new[key].copy()
    new[key].reshape(-1)[7] = value
    save_pair(folder, base, new)
    error = unwritten(folder, make_update, "base.onnx", "new.onnx", "old.bin", DiffOptions(codec))
    assert error.code == "tensor.nonfinite"
    assert str(error).startswith(f"new.onnx: tensor {key} has {value} at element 7 of {base[key].size}")
    error = unwritten(folder, make_update, "new.onnx", "base.onnx", "old.bin", DiffOptions(codec))
    assert error.code == "tensor.nonfinite" and f"new.onnx: tensor {key}" in str(error)


@pytest.mark.parametrize("codec", ["eden-4", "int8", "float32"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_difference_beyond_float32(codec: str, dtype: Any, folder: Path) -> None:
    base = {"v": np.zeros(9, dtype), "w": np.full(9, -3e38, dtype)}
    new = {"v": np.zeros(9, dtype), "w": np.full(9, 3e38, dtype)}
    save_pair(folder, base, new)
    error = unwritten(folder, make_update, "base.onnx", "new.onnx", "old.bin", DiffOptions(codec))
    assert error.code == "diff.overflow" and "tensor w differs from base.onnx by inf at element 0" in str(error)


def test_first_of_several_faults_is_named_whatever_the_threads(folder: Path) -> None:
    base = large()
    new = {k: v.copy() for k, v in base.items()}
    for key in ("a", "d", "e"):
        new[key][-1] = np.nan
    save_pair(folder, base, new)
    for threads in (1, 2, 5):
        error = unwritten(folder, make_update, "base.onnx", "new.onnx", "old.bin", DiffOptions("int8", threads=threads))
        assert "tensor a" in str(error)


def test_whole_numbers_and_scales_must_be_equal(folder: Path) -> None:
    base = small()
    new = trained(base) | {"count": np.array([0, 1, 2, 4])}
    save_pair(folder, base, new)
    error = unwritten(folder, make_update, "base.onnx", "new.onnx", "old.bin")
    assert error.code == "tensor.differs" and "tensor count of int64" in str(error) and "--exclude" in str(error)
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions(exclude=("count",)))


def test_another_architecture(folder: Path) -> None:
    base = small()
    save_pair(folder, base, {k: v for k, v in trained(base).items() if k != "wide"})
    error = unwritten(folder, make_update, "base.onnx", "new.onnx", "old.bin")
    assert error.code == "model.differs" and "wide" in str(error)


def test_wrong_base(folder: Path) -> None:
    base = small()
    save_pair(folder, base, trained(base))
    make_update("base.onnx", "new.onnx", "u.shoal")
    error = unwritten(folder, apply_updates, "new.onnx", ["u.shoal"], "old.bin")
    assert error.code == "update.base" and digest_of("base.onnx")[:16] in str(error)
    assert digest_of("new.onnx")[:16] in str(error)
    save_weights(base | {"count": base["count"] + 1}, "counted.onnx")
    assert unwritten(folder, apply_updates, "counted.onnx", ["u.shoal"], "old.bin").code == "update.base"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"w": np.zeros((11, 37), np.float32)}, "tensor w is float32[11, 37]; expected float32[37, 11]"),
        ({"w": np.zeros((37, 11), np.float16)}, "tensor w is float16[37, 11]; expected float32[37, 11]"),
        ({"more": np.zeros(3, np.float32)}, "tensor more is float32[3]; expected not there"),
        ({"w": None}, "tensor w is not there"),
        ({"count": None}, "tensor count is missing"),
    ],
)
def test_another_layout(change: dict[str, Any], word: str, folder: Path) -> None:
    base = small()
    save_pair(folder, base, trained(base))
    other = {k: v for k, v in (base | change).items() if v is not None}
    save_weights(other, "other.onnx")
    save_weights(trained(other), "other-new.onnx")
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions(exclude=("count",)))
    error = unwritten(folder, apply_updates, "other.onnx", ["u.shoal"], "old.bin")
    assert error.code == "update.layout" and word in str(error) and "u.shoal" in str(error)
    make_update("other.onnx", "other-new.onnx", "v.shoal", DiffOptions(exclude=("count",)))
    error = unwritten(folder, apply_updates, "base.onnx", ["u.shoal", "v.shoal"], "old.bin")
    assert error.code == "update.layout" and "v.shoal" in str(error)


def test_updates_that_do_not_belong_together(folder: Path) -> None:
    base = small()
    save_pair(folder, base, trained(base))
    make_update("base.onnx", "new.onnx", "u.shoal")
    make_update("new.onnx", "base.onnx", "v.shoal")
    assert unwritten(folder, apply_updates, "base.onnx", ["u.shoal", "v.shoal"], "old.bin").code == "update.base"


def test_result_beyond_the_type(folder: Path) -> None:
    base, new = {"w": np.full(5, 40000, np.float16)}, {"w": np.full(5, 60000, np.float16)}
    save_pair(folder, base, new)
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("float32"))
    with UpdateFile.open("u.shoal") as file:
        head, chunk = file.header, file._stored(0).tobytes()
    from test_update_file import built, header

    with ModelFile.open("new.onnx") as model:
        fields = header(base=model_digest(model), layout=head.layout, tensors=[[b"w", 10, [5]]])
    Path("w.shoal").write_bytes(built(fields, [(0, chunk)]))
    error = unwritten(folder, apply_updates, "new.onnx", ["w.shoal"], "old.bin")
    assert error.code == "apply.overflow" and "tensor w" in str(error) and "float16" in str(error)


def test_arguments(folder: Path) -> None:
    base = small()
    save_pair(folder, base, trained(base))
    make_update("base.onnx", "new.onnx", "u.shoal")
    for options, code in [
        ({"codec": "eden-5"}, "codec.unknown"), ({"samples": 0}, "diff.samples"), ({"samples": 2**54}, "diff.samples"),
        ({"seed": -1}, "diff.seed"), ({"seed": 2**64}, "diff.seed"), ({"threads": -1}, "diff.threads"),
    ]:  # fmt: skip
        assert refused(ArgumentError, lambda options=options: DiffOptions(**options)).code == code
    none = DiffOptions(exclude=("*",))
    assert refused(ArgumentError, make_update, "base.onnx", "new.onnx", "o.shoal", none).code == "diff.empty"
    for output in ("base.onnx", "new.onnx", "./new.onnx"):
        assert refused(ArgumentError, make_update, "base.onnx", "new.onnx", output).code == "diff.output"
    assert refused(ArgumentError, apply_updates, "base.onnx", ["u.shoal"], "u.shoal").code == "apply.output"
    assert refused(ArgumentError, apply_updates, "base.onnx", [], "o.onnx").code == "apply.updates"
    for weights in ([1, 2], [-1], [np.nan], [np.inf], [0]):
        options = ApplyOptions(weights)
        assert (
            refused(ArgumentError, apply_updates, "base.onnx", ["u.shoal"], "o.onnx", options).code == "apply.weights"
        )
    assert not Path("o.shoal").exists() and not Path("o.onnx").exists()


def test_damage_is_found_while_applying(folder: Path) -> None:
    base = large()
    save_pair(folder, base, trained(base))
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("int8"))
    data = bytearray(Path("u.shoal").read_bytes())
    data[len(data) // 2] ^= 1
    Path("u.shoal").write_bytes(data)
    error = unwritten(folder, apply_updates, "base.onnx", ["u.shoal"], "old.bin")
    assert error.code == "update.sum" and "chunk" in str(error)


@pytest.mark.parametrize("threads", [1, 3])
def test_interrupted(threads: int, folder: Path) -> None:
    base = large()
    save_pair(folder, base, trained(base))
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("int8"))
    Path("old.bin").write_bytes(b"old")
    before = sorted(p.name for p in folder.iterdir())

    def stop(done: int, total: int) -> None:
        assert 0 < done <= total
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_update("base.onnx", "new.onnx", "old.bin", DiffOptions("int8", threads=threads, progress=stop))
    with pytest.raises(KeyboardInterrupt):
        apply_updates("base.onnx", ["u.shoal"], "old.bin", ApplyOptions(threads=threads, progress=stop))
    assert Path("old.bin").read_bytes() == b"old" and sorted(p.name for p in folder.iterdir()) == before


def test_progress_ends_at_the_total(folder: Path) -> None:
    base = large()
    save_pair(folder, base, trained(base))
    seen: list[tuple[int, int]] = []
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("int8", progress=lambda *told: seen.append(told)))
    whole = 2 * sum(v.nbytes for v in base.values())
    assert seen[-1] == (whole, whole) and seen == sorted(seen) and len(seen) > 3
    seen.clear()
    apply_updates("base.onnx", ["u.shoal"], "o.onnx", ApplyOptions(progress=lambda *told: seen.append(told)))
    assert seen[-1] == (whole // 2, whole // 2) and seen == sorted(seen)


PEAK = """
import re, sys
from shoal.diff.apply import apply_updates
from shoal.diff.make import DiffOptions, make_update
if sys.argv[1] == "diff":
    make_update("base.onnx", "new.onnx", "u.shoal", DiffOptions("int8", threads=2))
else:
    apply_updates("base.onnx", ["u.shoal"] * 8, "out.onnx")
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])  # rusage would count the parent's
"""


def test_memory_does_not_grow_with_the_models(folder: Path) -> None:
    """Peak of a process with models of 4 and of 96 MB: the difference is far below one model."""
    peaks: dict[str, list[int]] = {"diff": [], "apply": []}
    for megabytes in (4, 96):
        base = {"w": np.zeros(megabytes * 2**18, np.float32)}
        save_pair(folder, base, {"w": np.full(megabytes * 2**18, 0.5, np.float32)})
        for what, found in peaks.items():
            done = subprocess.run(
                [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{PEAK}", what],
                check=True, capture_output=True, text=True, cwd=folder,
            )  # fmt: skip
            found.append(int(done.stdout) * 1024)
    for what, (small_peak, large_peak) in peaks.items():
        assert large_peak - small_peak < 24 * 2**20, (what, small_peak, large_peak)
