"""Pairs of models for tests: a base and what training made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from shoal.diff.update_file import UpdateFile
from shoal.model.file import ModelFile
from shoal.model.weights import save_weights

Arrays = dict[str, np.ndarray]


def small(seed: int = 0) -> Arrays:
    """Every floating type, tensors without dimensions and without elements, and whole numbers."""
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(size=(37, 11)).astype(np.float32),
        "half": rng.normal(size=(9, 5)).astype(np.float16),
        "brain": rng.normal(size=70).astype(ml_dtypes.bfloat16),
        "wide": rng.normal(size=(3, 40)),
        "one": np.array(rng.normal(), np.float32),
        "none": np.zeros((0, 4), np.float32),
        "count": np.arange(4),
    }


def trained(base: Mapping[str, np.ndarray], seed: int = 1, size: float = 1e-2) -> Arrays:
    """Floating tensors moved by about ``size``; all others equal."""
    rng = np.random.default_rng(seed)
    return {
        key: value if value.dtype.kind in "iu" else (value + size * rng.normal(size=value.shape)).astype(value.dtype)
        for key, value in base.items()
    }


def save_pair(folder: Path, base: Arrays, new: Arrays) -> tuple[Path, Path]:
    save_weights(base, folder / "base.onnx")
    save_weights(new, folder / "new.onnx")
    return folder / "base.onnx", folder / "new.onnx"


def load(path: Path) -> Arrays:
    with ModelFile.open(path) as file:
        return {key: file.array(ref) for key, ref in file.tensors.items()}


def flat(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """All floating numbers as float64, by key."""
    kept = [arrays[key] for key in sorted(arrays) if arrays[key].dtype.kind not in "iu"]
    return np.concatenate([value.astype(np.float64).reshape(-1) for value in kept])


def nmse(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


def read_all(path: Path) -> np.ndarray:
    """Every number of an update file, every byte checked."""
    with UpdateFile.open(path) as file:
        out = np.empty(file.layout.elements, np.float32)
        for number in range(file.chunks.count):
            first, count = file.chunks.elements(number)
            file.read(number, out[first : first + count])
        return out
