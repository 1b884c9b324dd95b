"""Merge two models in Python: as arrays of any framework, and as ONNX files.

Run: python examples/merge_two_models.py
"""

import tempfile
from pathlib import Path

import numpy as np

import shoal

# Two sites' models as a framework holds them: name -> array (numpy here; torch and JAX arrays go in the same way).
rng = np.random.default_rng(0)
site_a = {"fc.weight": rng.normal(size=(3, 2)).astype(np.float32), "fc.bias": np.zeros(2, np.float32)}
site_b = {"fc.weight": rng.normal(size=(3, 2)).astype(np.float32), "fc.bias": np.ones(2, np.float32)}

# Weighted by the number of patients that each was trained on.
merged = shoal.merge([site_a, site_b], weights=[812, 240])
print("merged bias:", merged["fc.bias"])

# The same from file to file, in memory that does not grow with the models.
with tempfile.TemporaryDirectory() as folder:
    paths = [Path(folder, name) for name in ("a.onnx", "b.onnx")]
    for model, path in zip((site_a, site_b), paths, strict=True):
        shoal.save(model, path)
    report = shoal.merge_files(paths, Path(folder, "merged.onnx"), shoal.MergeOptions(weights=[812, 240]))
    print(f"{report.tensors_merged} tensors, {report.numbers} parameters, digest {report.digest[:16]}")
    with shoal.load(Path(folder, "merged.onnx")) as model:
        assert np.array_equal(model["fc.bias"], merged["fc.bias"])
