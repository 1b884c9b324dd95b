"""`shoal merge` of files against the cost of touching the same bytes: cat of all inputs, cp of one; and against onnx + numpy.

SHOAL_BENCH_MB      size of one model file (default 256; 1 when benchmarks are disabled)
SHOAL_BENCH_MODELS  number of files (default 8)
Times are the best of some runs with a warm page cache, whole processes, start of the interpreter included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODELS = int(os.environ.get("SHOAL_BENCH_MODELS", "8"))
SHOAL = [sys.executable, "-m", "shoal"]

#: what people do today: parse all models, stack, average, write
ONNX_NUMPY = """
import sys, numpy as np, onnx
from onnx import numpy_helper
models = [onnx.load(p) for p in sys.argv[1:-1]]
for initializer in models[0].graph.initializer:
    same = [numpy_helper.to_array(i) for m in models for i in m.graph.initializer if i.name == initializer.name]
    initializer.CopyFrom(numpy_helper.from_array(np.average(same, axis=0).astype(np.float32), initializer.name))
onnx.save(models[0], sys.argv[-1])
"""


#: A child's peak counts the pages of the process that forked it, so a small process starts and times the command.
LAUNCHER = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def run(command: list[str]) -> tuple[float, int]:
    """(seconds, peak resident bytes) of one process."""
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *command], check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()
    return float(seconds), int(peak)


def best(command: list[str], rounds: int, before: Callable[[], object] = lambda: None) -> tuple[float, int]:
    found = []
    for _ in range(rounds):
        before()
        found.append(run(command))
    return min(t for t, _ in found), max(m for _, m in found)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    from shoal.model.weights import save_weights

    disabled = request.config.getoption("benchmark_disable")
    megabytes = 1 if disabled else int(os.environ.get("SHOAL_BENCH_MB", "256"))
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(7)
    rows = megabytes * 2**20 // 4 // 16 // 1024
    tensors = {f"layer{k}.weight": rng.normal(size=(rows, 1024)).astype(np.float32) for k in range(16)}
    paths = []
    for k in range(MODELS):
        paths.append(str(folder / f"site{k}.onnx"))
        save_weights({name: value + np.float32(k) for name, value in tensors.items()}, paths[-1])
    yield paths
    shutil.rmtree(folder)


def test_merge_of_files(benchmark: Any, files: list[str]) -> None:
    """8 files, weighted mean, one command."""
    folder = Path(files[0]).parent
    out, copy = str(folder / "out.onnx"), str(folder / "copy.onnx")
    rounds = 1 if benchmark.disabled else 5
    cat, _ = best(["cat", *files], rounds)
    cp, _ = best(["cp", files[0], copy], rounds, lambda: Path(copy).unlink(missing_ok=True))
    Path(copy).unlink()
    ours, memory = best(
        [*SHOAL, "merge", *files, "-o", out, "--quiet"], rounds, lambda: Path(out).unlink(missing_ok=True)
    )
    numpy_out = str(folder / "numpy.onnx")
    theirs, their_memory = best([sys.executable, "-c", ONNX_NUMPY, *files, numpy_out], 1 if benchmark.disabled else 2)
    benchmark.extra_info.update(
        {
            "megabytes": Path(files[0]).stat().st_size / 2**20,
            "cat all + cp one, s": cat + cp,
            "shoal merge, s": ours,
            "ratio to cat + cp": ours / (cat + cp),
            "shoal peak MB": memory / 2**20,
            "onnx + numpy, s": theirs,
            "onnx + numpy peak MB": their_memory / 2**20,
            "times faster than onnx + numpy": theirs / ours,
        }
    )
    benchmark.pedantic(run, ([*SHOAL, "merge", *files, "-o", out, "--quiet"],), rounds=rounds)

    import shoal

    merged, check = shoal.load(out), shoal.load(numpy_out)
    for name in check:
        assert np.allclose(merged[name], check[name], rtol=1e-5, atol=1e-5)  # theirs is summed in float32


def test_start_of_help(benchmark: Any) -> None:
    """`shoal --help`: what every command costs before it does anything."""
    bare, _ = best([sys.executable, "-c", "pass"], 3)
    seconds, memory = best([*SHOAL, "--help"], 1 if benchmark.disabled else 9)
    benchmark.extra_info.update({"python alone, s": bare, "shoal --help, s": seconds, "peak MB": memory / 2**20})
    benchmark.pedantic(run, ([*SHOAL, "--help"],), rounds=1 if benchmark.disabled else 5)
    assert seconds > bare
