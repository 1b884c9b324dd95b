"""Build of the native parts.

Four modules: ``shoal.kernels._native`` (C++20 through pybind11), ``shoal.model._onnx_index`` (Cython),
``shoal.kernels._cuda_host`` (the CUDA kernels' arithmetic for the CPU, which tests compare with the reference) and,
where nvcc is found, ``shoal.kernels._cuda``.  Environment:

SHOAL_CUDA        unset or "auto": build _cuda if nvcc works, else go on without it;  "1": fail if it cannot be built;
                  "0": leave it out
SHOAL_CUDA_ARCHS  compute capabilities, default "75 80 86 89 90"; PTX of the last one is added for later devices
SHOAL_ONLY        build one module, by the last part of its name: "_native", "_onnx_index", "_cuda_host" or "_cuda"
SHOAL_SANITIZE    for tests of the native code: e.g. "address,undefined" or "thread"
SHOAL_UNWATCHED   with it: sources whose names begin so are compiled as always, e.g. "level_": these take very long
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
NATIVE = Path("native")
SANITIZE = os.environ.get("SHOAL_SANITIZE", "")
UNWATCHED = os.environ.get("SHOAL_UNWATCHED", "")

# Same bits everywhere: contraction into fused multiply-add would round once where the definition rounds twice.
CXX_FLAGS = [
    "-std=c++20",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-g0",
    "-Wall",
    "-Wextra",
]
LINK_FLAGS = ["-pthread", "-Wl,-z,now", "-Wl,-z,relro"] if sys.platform == "linux" else []
PLAIN_FLAGS = list(CXX_FLAGS)
if SANITIZE:
    # -O1: what is watched takes the compiler many times as long at -O3.
    CXX_FLAGS += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1", "-O1"]
    LINK_FLAGS += [f"-fsanitize={SANITIZE}"]

#: how the names of files end that are compiled for one instruction set
LEVELS = ("_portable", "_avx2", "_avx512")

#: sources of _cuda that are the same in its host twin
SHARED_WITH_TWIN = (NATIVE / "cuda" / "pipeline.cpp", NATIVE / "pool.cpp")

# One file per instruction set, compiled with that set's flags and with no other file's (docs/adr/0002).
LEVEL_FLAGS: dict[str, list[str]] = {"level_portable.cpp": [], "ring_portable.cpp": [], "coding_portable.cpp": []}
if platform.machine() in ("x86_64", "AMD64"):
    for kernels in ("level", "ring", "coding"):
        LEVEL_FLAGS[f"{kernels}_avx2.cpp"] = ["-march=x86-64-v3", "-mprefer-vector-width=256"]
        LEVEL_FLAGS[f"{kernels}_avx512.cpp"] = ["-march=x86-64-v4", "-mprefer-vector-width=512"]


def flags_of(source: Path) -> list[str]:
    """What one file is compiled with besides: the host twin is not for speed, and so takes a third of the time."""
    return ["-O1"] if source.name.startswith("host_") else LEVEL_FLAGS.get(source.name, [])


def with_headers(source: Path) -> set[Path]:
    """A source and every header of ours that it includes, directly or not: what its object is made of."""
    found, open_ = {source}, [source]
    while open_:
        here = open_.pop()
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', here.read_text(), re.MULTILINE):
            headers = {p for p in (here.parent / name, NATIVE / name) if p.exists()} - found
            found |= headers
            open_ += headers
    return found


class BuildNative(build_ext):
    """build_ext that compiles level files with their own flags, .cu files with nvcc, and only what has changed."""

    def build_extension(self, ext: Extension) -> None:
        device = [s for s in ext.sources if s.endswith(".cu")]
        host = [s for s in ext.sources if s.endswith(".cpp")]
        if device:
            try:
                ext.extra_objects += [self._nvcc(source) for source in device]
                self._link_cuda(ext)
            except (OSError, subprocess.CalledProcessError) as error:
                if os.environ.get("SHOAL_CUDA") == "1":
                    raise
                self.warn(f"building without CUDA: {error}")
                return
        # The level files take a quarter of a minute each: side by side.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects += pool.map(lambda source: self._compile(ext, source), host)
        ext.sources = [s for s in ext.sources if s not in host and s not in device]
        ext.depends = [*ext.depends, *ext.extra_objects]
        super().build_extension(ext)

    def _compile(self, ext: Extension, source: str) -> str:
        folder = Path(self.build_temp, SANITIZE)
        target = Path(folder, source).with_suffix(".o")
        newest = max(p.stat().st_mtime for p in {Path("setup.py"), *with_headers(Path(source))})
        plain = UNWATCHED and Path(source).name.startswith(UNWATCHED)
        flags = PLAIN_FLAGS if plain else ext.extra_compile_args or []
        if self.force or not target.exists() or target.stat().st_mtime <= newest:
            self.compiler.compile(
                [source],
                output_dir=str(folder),
                include_dirs=ext.include_dirs,
                extra_postargs=[*flags, *flags_of(Path(source))],
            )
        return str(target)

    def _nvcc(self, source: str) -> str:
        archs = os.environ.get("SHOAL_CUDA_ARCHS", "75 80 86 89 90").split()
        target = Path(self.build_temp, source).with_suffix(".cu.o")
        target.parent.mkdir(parents=True, exist_ok=True)
        newest = max(p.stat().st_mtime for p in {Path("setup.py"), *with_headers(Path(source))})
        if not self.force and target.exists() and target.stat().st_mtime > newest:
            return str(target)
        codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
        codes.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
        command = [
            "nvcc",
            "-std=c++20",
            "-O3",
            "-fmad=false",
            "-Xcompiler",
            "-fPIC,-fvisibility=hidden",
            f"-I{NATIVE}",
            *codes,
            "--threads",
            "2",
        ]
        subprocess.run([*command, "-c", source, "-o", str(target)], check=True)
        return str(target)

    def _link_cuda(self, ext: Extension) -> None:
        """The CUDA runtime, static: the module then needs no CUDA library to be imported."""
        dry = subprocess.run(
            ["nvcc", "-dryrun", "-x", "cu", os.devnull, "-c"], check=True, capture_output=True, text=True
        )
        match = re.search(r"TOP=(\S+)", dry.stderr)
        if match is None:
            raise OSError("nvcc -dryrun does not say where CUDA lies")
        top = Path(match.group(1))
        ext.include_dirs.append(str(top / "include"))
        for library in ("libcudart_static.a", "libculibos.a"):
            found = next(
                iter(sorted(top.glob(f"lib*/**/{library}")) or sorted(top.glob(f"targets/*/lib/{library}"))), None
            )
            if found is None:
                raise OSError(f"{library} not found below {top}")
            ext.extra_objects.append(str(found))
        ext.extra_link_args += ["-ldl", "-lrt", "-lpthread"]


def extensions() -> list[Extension]:
    native = Pybind11Extension(
        "shoal.kernels._native",
        sources=sorted(str(p) for p in NATIVE.glob("*.cpp") if p.name in LEVEL_FLAGS or not p.stem.endswith(LEVELS)),
        include_dirs=[str(NATIVE)],
        extra_compile_args=CXX_FLAGS,
        extra_link_args=LINK_FLAGS,
    )
    index = Extension(
        "shoal.model._onnx_index",
        sources=["src/shoal/model/_onnx_index.pyx"],
        depends=sorted(str(p) for p in Path("src/shoal/model").glob("*.pxi")),
        extra_compile_args=["-O2", "-g0", *([f"-fsanitize={SANITIZE}"] if SANITIZE else [])],
        extra_link_args=[f"-fsanitize={SANITIZE}"] if SANITIZE else [],
    )
    host_twin = Pybind11Extension(
        "shoal.kernels._cuda_host",
        sources=sorted(str(p) for p in (*NATIVE.glob("cuda/host_*.cpp"), *SHARED_WITH_TWIN)),
        include_dirs=[str(NATIVE)],
        extra_compile_args=CXX_FLAGS,
        extra_link_args=LINK_FLAGS,
    )
    only = os.environ.get("SHOAL_ONLY", "")
    found = [native, host_twin, *(cythonize([index], language_level=3) if only in ("", "_onnx_index") else [])]
    answer = os.environ.get("SHOAL_CUDA", "auto")
    if answer == "1" and shutil.which("nvcc") is None:
        raise SystemExit("SHOAL_CUDA=1 but nvcc is not on PATH")
    if answer != "0" and shutil.which("nvcc") is not None:
        found.append(
            Pybind11Extension(
                "shoal.kernels._cuda",
                sources=sorted(
                    str(p)
                    for p in (*NATIVE.glob("cuda/*.c*"), NATIVE / "pool.cpp")
                    if p.suffix in (".cpp", ".cu") and not p.name.startswith("host_")
                ),
                include_dirs=[str(NATIVE)],
                extra_compile_args=CXX_FLAGS,
                extra_link_args=LINK_FLAGS,
                optional=answer != "1",
            )
        )
    return found


def wanted(found: list[Extension]) -> list[Extension]:
    only = os.environ.get("SHOAL_ONLY", "")
    return [ext for ext in found if only in ("", ext.name.rpartition(".")[2])]


os.chdir(ROOT)
setup(ext_modules=wanted(extensions()), cmdclass={"build_ext": BuildNative})
