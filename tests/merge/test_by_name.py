"""Settings by the tensor's name: which holds for which, and that each tensor is merged as with its settings alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.errors import ArgumentError
from shoal.merge.by_name import ByName, Cases, Settings

NAMES = ("enc.w", "enc.b", "dec.w", "head")


def tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(5, 40)).astype(np.float32) for name in NAMES} | {"steps": np.array([7])}


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three models and their base."""
    found = [tmp_path / f"{i}.onnx" for i in range(4)]
    for i, path in enumerate(found):
        shoal.save(tensors(i), path)
    return found


def merged(paths: list[Path], output: str, **options: Any) -> dict[str, np.ndarray]:
    path = paths[0].parent / output
    shoal.merge_files(paths[:3], path, shoal.MergeOptions(**options), base=paths[3])
    with shoal.load(path) as model:
        return {key: model[key].copy() for key in model}


def test_the_first_case_that_fits_holds() -> None:
    cases = Cases((("enc", 1.0), (".w", 2.0), (None, 3.0)))
    assert [cases.of(name, "weight") for name in NAMES] == [1.0, 1.0, 2.0, 3.0]
    with pytest.raises(ArgumentError, match=r"tensor head: no filter of weight fits it"):
        Cases((("enc", 1.0),)).of("head", "weight")


def test_groups_share_settings() -> None:
    by_name = ByName((Cases((("enc", 1.0), (None, 2.0))), Cases.always(4.0)), {"t": Cases((("w", 0.1), (None, 0.2)))})
    assert by_name.groups(NAMES) == {
        Settings((1.0, 4.0), (("t", 0.1),)): ["enc.w"],
        Settings((1.0, 4.0), (("t", 0.2),)): ["enc.b"],
        Settings((2.0, 4.0), (("t", 0.1),)): ["dec.w"],
        Settings((2.0, 4.0), (("t", 0.2),)): ["head"],
    }


METHODS = ["mean", "median", "trimmed-mean", "task-arithmetic", "ties", "dare", "dare-ties"]


@pytest.mark.parametrize("method", METHODS)
def test_each_tensor_is_merged_as_with_its_settings_alone(method: str, paths: list[Path]) -> None:
    by_name = ByName((Cases((("enc", 1.0), (None, 5.0))), Cases((("dec", 0.0), (None, 2.0))), Cases.always(3.0)))
    found = merged(paths, "out.onnx", method=method, by_name=by_name)
    alone = {"enc": (1, 2, 3), "dec": (5, 0, 3), "head": (5, 2, 3)}
    for part, weights in alone.items():
        expected = merged(paths, f"{part}.onnx", method=method, weights=weights)
        for name in (name for name in NAMES if name.startswith(part)):
            assert found[name].tobytes() == expected[name].tobytes(), name
    assert found["steps"].tolist() == [7]


def test_parameters_by_name_and_by_model(paths: list[Path]) -> None:
    by_name = ByName(None, {"density": (Cases((("enc", 0.2), (None, 0.9))), Cases.always(0.5), Cases.always(1.0))})
    found = merged(paths, "out.onnx", method="ties", by_name=by_name)
    for part, density in {"enc": (0.2, 0.5, 1.0), "dec": (0.9, 0.5, 1.0)}.items():
        expected = merged(paths, f"{part}.onnx", method="ties", parameters={"density": density})
        assert found[f"{part}.w"].tobytes() == expected[f"{part}.w"].tobytes()


@pytest.mark.parametrize("outer", ["sgd", "adam"])
def test_with_an_outer_step(outer: str, paths: list[Path]) -> None:
    by_name = ByName((Cases((("enc", 1.0), (None, 5.0))), Cases.always(2.0), Cases.always(3.0)))
    states = [paths[0].parent / f"{name}.state" for name in "ab"]
    output = paths[0].parent / "out.onnx"
    shoal.merge_files(
        paths[:3], output, shoal.MergeOptions(outer=outer, by_name=by_name), base=paths[3], outer_state=states[0]
    )
    with shoal.load(output) as model:
        found = {key: model[key].copy() for key in model}
    expected = merged(paths, "enc.onnx", outer=outer, weights=(1, 2, 3))
    assert found["enc.w"].tobytes() == expected["enc.w"].tobytes()
    expected = merged(paths, "dec.onnx", outer=outer, weights=(5, 2, 3))
    assert found["dec.w"].tobytes() == expected["dec.w"].tobytes()


def test_threads_and_progress(paths: list[Path]) -> None:
    by_name = ByName((Cases((("enc", 1.0), (None, 5.0))), Cases.always(2.0), Cases.always(3.0)))
    digests = set()
    for threads in (1, 3):
        told: list[tuple[int, int]] = []
        report = shoal.merge_files(
            paths[:3],
            paths[0].parent / "out.onnx",
            shoal.MergeOptions(by_name=by_name, threads=threads, progress=lambda *p, told=told: told.append(p)),
        )
        digests.add(report.digest)
        assert told == sorted(told) and told[-1] == (report.bytes_read, report.bytes_read)
        assert report.tensors_merged == 4 and report.tensors_passed == 1 and report.numbers == 800
        assert [part["tensors"] for part in report.notes["by_name"]] == [3, 2]
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "krum"}, "krum looks at whole models"),
        ({"quantised": "merge"}, "quantised=merge does not go"),
        (
            {"by_name": ByName((Cases.always(0.0), Cases.always(0.0), Cases((("enc", 1.0), (None, 0.0)))))},
            "tensor dec.w: all",
        ),
        ({"by_name": ByName((Cases.always(1.0),))}, "1 weights given for 3 models"),
        ({"by_name": ByName(None, {"beta": Cases.always(0.1)})}, "beta"),
        (
            {"by_name": ByName((Cases((("enc", 1.0),)), Cases.always(1.0), Cases.always(1.0)))},
            "tensor dec.w: no filter",
        ),
        ({"method": "ties", "parameters": {"density": (0.1, 0.2)}}, "density: 2 values given for 3 models"),
        ({"method": "ties", "parameters": {"density": (0.1, 0.2, 3)}}, "density is 3"),
    ],
)
def test_refused(options: dict[str, Any], says: str, paths: list[Path]) -> None:
    with pytest.raises(ArgumentError) as caught:
        merged(paths, "out.onnx", **{"by_name": ByName((Cases.always(1.0),) * 3), **options})
    assert says in str(caught.value)
    assert not (paths[0].parent / "out.onnx").exists()
