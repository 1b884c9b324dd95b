"""The bench of the GPU runs tiny, by the host twin: every row is there, and every floor is a time."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shoal.kernels import _cuda_host
from shoal.kernels.cuda import available
from shoal.kernels.device import Device

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "gpu" / "run.py"


class Clocked:
    """The twin with a clock, and limits that are made up."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_cuda_host, name)

    class Timer:
        def __init__(self, device: int, stream: int) -> None:
            self.begun = 0.0

        def start(self) -> None:
            self.begun = time.perf_counter()

        def stop(self) -> float:
            return time.perf_counter() - self.begun

    def copy_seconds(self, moved: int, device: int) -> float:
        return moved / 1e12

    def bus_seconds(self, moved: int, to_device: bool, device: int) -> float:
        return moved / 1e10

    def cipher_seconds(self, blocks: int, device: int) -> float:
        return blocks / 1e9


def test_gpu_bench_runs_tiny() -> None:
    spec = importlib.util.spec_from_file_location("gpu_bench", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_bench"] = module
    spec.loader.exec_module(module)
    bench = module.Bench(Clocked(), Device(0, "the host", (0, 0), 2**30), 2**14, repeats=1)
    rows = bench.rows()
    assert len(rows) == len({row.name for row in rows}) == 28
    assert all(row.seconds > 0 and row.floor > 0 for row in rows)
    text = module.table(bench, rows)
    assert all(row.name in text for row in rows) and "the host" in text


def test_gpu_bench_says_in_one_line_that_there_is_no_device() -> None:
    if available()[0]:
        pytest.skip("this machine has a CUDA device")
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=60)
    (said,) = done.stderr.splitlines()
    assert done.returncode == 1 and said.startswith("bench/gpu: nothing to measure") and not done.stdout
