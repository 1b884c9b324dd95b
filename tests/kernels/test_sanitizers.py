"""The kernels' own tests against native code that watches every address and every undefined operation.

    address      reads and writes beyond arrays, tiles, tables, stacks
    undefined    shifts, overflows, misalignment, null pointers, conversions that have no meaning

One build, one run of the kernels' tests with it; minutes, so only `make slow` does it.  The kernels of merges are compiled
as always: to watch them takes the compiler too long.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: what the native code is called by; those of CUDA, threads' timing and memory's peak would measure the watching
SUITES = ("test_coding.py", "test_coding_arguments.py", "test_ring.py", "test_shamir.py", "test_dispatch.py")
SANITIZERS = "address,undefined"


def library(name: str) -> str:
    """Path of a run-time library of the compiler's, which must be loaded before Python."""
    found = subprocess.run(
        [os.environ.get("CC", "gcc"), f"-print-file-name={name}"], check=True, capture_output=True, text=True
    )
    path = found.stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"the compiler has no {name}")
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose kernels are watched."""
    if not shutil.which(os.environ.get("CC", "gcc")):
        pytest.skip("no compiler")
    library("libasan.so")
    folder = tmp_path_factory.mktemp("watched")
    for name in ("native", "src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("_native*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    settings = {
        "SHOAL_SANITIZE": SANITIZERS, "SHOAL_UNWATCHED": "level_", "SHOAL_ONLY": "_native", "SHOAL_CUDA": "0",
        "PYTHONPATH": "src",
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=folder, env={**os.environ, **settings}, check=True,
    )  # fmt: skip
    return folder


def watched(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / "src"),
        "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so')}",
        # Python keeps much for as long as it lives; a pool's threads are never joined.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=86",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return subprocess.run([sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_an_address_outside_would_be_seen(tree: Path) -> None:
    """The native module below the checks of its callers, with an array that is freed: the process ends with the report."""
    code = (
        "import ctypes, numpy as np; from shoal.kernels import _native; print(_native.__file__)\n"
        "room = ctypes.CDLL(None).malloc; room.restype = ctypes.c_void_p; at = room(ctypes.c_size_t(64))\n"
        "x = np.ctypeslib.as_array(ctypes.cast(at, ctypes.POINTER(ctypes.c_uint8)), (128,))\n"
        "_native.ring_keystream(np.zeros(32, np.uint8), 0, 0, x, 1)\n"
    )
    done = watched(tree, "-c", code)
    assert str(tree) in done.stdout and done.returncode == 86, done.stderr[-2000:]
    assert "heap-buffer-overflow" in done.stderr and "keystream" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_kernels_do_nothing_that_is_not_defined(tree: Path, suite: str) -> None:
    done = watched(
        tree, "-m", "pytest", f"tests/kernels/{suite}", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider"
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
