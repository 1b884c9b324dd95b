"""`shoal merge --device cuda` and `shoal eval --device cuda`: the same bytes, or one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_nets import save_net

from shoal.kernels import _cuda_host, cuda
from shoal.kernels.cuda_staged import Staged
from shoal.merge.files import merge_files
from shoal.merge.options import ON_DEVICE, MergeOptions, plan

FILES = ["a.onnx", "b.onnx", "c.onnx"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(FILES):
        save_net(tmp_path / name, seed)
    return tmp_path


@pytest.mark.parametrize("method", ["mean", "median", "trimmed-mean"])
@pytest.mark.parametrize("weights", [None, (3.0, 1.0, 2.0)])
def test_a_merge_by_the_twin_gives_the_cpus_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, weights: tuple[float, ...] | None
) -> None:
    used = Staged(_cuda_host, -1, 2**17)
    monkeypatch.setattr("shoal.merge.engine.staged", lambda: used)
    paths = [folder / name for name in FILES]
    for device in ("cpu", "cuda"):
        options = MergeOptions(
            weights=weights, method=method, device=device, parameters={"beta": 0.4} if "-" in method else {}
        )
        merge_files(paths, folder / f"{device}.onnx", options)
    assert (folder / "cpu.onnx").read_bytes() == (folder / "cuda.onnx").read_bytes()


def test_a_rule_without_device_kernels_is_refused(folder: Path) -> None:
    from shoal.errors import ArgumentError

    cases = [
        ("krum", "cuda", 1, "device.rule"),
        ("krum", "tpu", 1, "device.unknown"),
        ("median", "cuda", 33, "device.models"),
        ("mean", "cuda", 129, "device.models"),
    ]
    for method, device, count, code in cases:
        with pytest.raises(ArgumentError) as raised:
            plan(MergeOptions(method=method, device=device), count, False)
        assert raised.value.code == code
        with pytest.raises(ArgumentError):
            merge_files([folder / "a.onnx"] * count, folder / "out.onnx", MergeOptions(method=method, device=device))
        assert not (folder / "out.onnx").exists()


def test_a_device_takes_as_many_models_as_the_plan_says() -> None:
    most = {"mean": _cuda_host.INPUTS_MAX, "median": _cuda_host.ORDER_MAX, "trimmed-mean": _cuda_host.ORDER_MAX}
    assert most == ON_DEVICE


def test_merge_says_in_one_line_that_there_is_no_device(folder: Path, shoal: Callable) -> None:
    if cuda.available()[0]:
        pytest.skip("this machine has a CUDA device")
    error = shoal("merge", *FILES, "-o", "out.onnx", "--device", "cuda").error()
    assert "--device cuda cannot be used: " in error and not (folder / "out.onnx").exists()


def test_eval_goes_on_with_the_cpu_and_says_so_once(folder: Path, shoal: Callable) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    rng = np.random.default_rng(0)
    np.savez(folder / "d.npz", x=rng.standard_normal((30, 3)).astype(np.float32), y=rng.integers(0, 2, 30))
    plain = shoal("eval", "a.onnx", "d.npz", "--metric", "auc", "--format", "json")
    done = shoal("eval", "a.onnx", "d.npz", "--metric", "auc", "--format", "json", "--device", "cuda")
    assert done.code == plain.code == 0 and done.json["metrics"] == plain.json["metrics"]
    (said,) = done.err.splitlines()
    assert said.startswith("--device cuda cannot be used, going on with the CPU: ") and "shoal[gpu]" in said
