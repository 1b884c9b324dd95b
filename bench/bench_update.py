"""`shoal diff` and `shoal apply` of files: whole processes, against reading the same bytes, and the error of each codec.

SHOAL_BENCH_MB      size of one model file (default 256; 1 when benchmarks are disabled)
Times are the best of some runs with a warm page cache, start of the interpreter included.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_files import SHOAL, best
from shoal.diff.codec import CODECS


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder with base.onnx and new.onnx."""
    from shoal.model.weights import save_weights

    disabled = request.config.getoption("benchmark_disable")
    megabytes = 1 if disabled else int(os.environ.get("SHOAL_BENCH_MB", "256"))
    folder = tmp_path_factory.mktemp("update")
    rng = np.random.default_rng(7)
    rows = megabytes * 2**20 // 4 // 16 // 1024
    base = {f"layer{k}.weight": rng.normal(size=(rows, 1024)).astype(np.float32) for k in range(16)}
    save_weights(base, folder / "base.onnx")
    for value in base.values():
        value += rng.standard_normal(value.shape, np.float32) * np.float32(0.01)
    save_weights(base, folder / "new.onnx")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("codec", ["eden-1", "eden-4", "eden-8", "int4", "int8", "float16", "float32"])
def test_diff(benchmark: Any, pair: Path, codec: str) -> None:
    """Two models to an update file, one command."""
    from shoal.diff.measure import measure
    from shoal.diff.update_file import UpdateFile

    base, new, out = (str(pair / name) for name in ("base.onnx", "new.onnx", "u.shoal"))
    command = [*SHOAL, "diff", base, new, "-o", out, "--codec", codec, "--seed", "1", "--quiet"]
    rounds = 1 if benchmark.disabled else 5
    cat, _ = best(["cat", base, new], rounds)
    ours, memory = best(command, rounds, lambda: Path(out).unlink(missing_ok=True))
    model = Path(base).stat().st_size
    with UpdateFile.open(out) as update:
        fit = measure(update, base, new)
    assert fit.nmse is not None and fit.nmse < {1: 0.6, 4: 0.013, 8: 6e-5, 16: 1e-7, 32: 1e-12}[CODECS[codec].bits]
    benchmark.extra_info.update(
        {
            "megabytes": model / 2**20,
            "seconds": ours,
            "GB/s of one model": model / ours / 1e9,
            "ratio to cat of both": ours / cat,
            "share of the size": Path(out).stat().st_size / model,
            "nmse": fit.nmse,
            "peak MB": memory / 2**20,
        }
    )
    benchmark.pedantic(lambda: best(command, 1), rounds=rounds)


@pytest.mark.parametrize("updates", [1, 8])
def test_apply(benchmark: Any, pair: Path, updates: int) -> None:
    """Base and updates of 4 bits to a model, one command."""
    base, new, update, out = (str(pair / name) for name in ("base.onnx", "new.onnx", "v.shoal", "out.onnx"))
    best([*SHOAL, "diff", base, new, "-o", update, "--bits", "4", "--quiet"], 1)
    command = [*SHOAL, "apply", base, *[update] * updates, "-o", out, "--quiet"]
    rounds = 1 if benchmark.disabled else 5
    ours, memory = best(command, rounds, lambda: Path(out).unlink(missing_ok=True))
    model = Path(base).stat().st_size
    assert Path(out).stat().st_size == model
    benchmark.extra_info.update(
        {
            "megabytes": model / 2**20,
            "seconds": ours,
            "GB/s of one model": model / ours / 1e9,
            "peak MB": memory / 2**20,
        }
    )
    benchmark.pedantic(lambda: best(command, 1), rounds=rounds)
