"""Accuracy of every coding; the time is that of the measurement and says nothing.

| environment variable | meaning |
|---|---|
| SHOAL_BENCH_QUALITY_ELEMENTS | elements of an update (default 2**20) |
"""

from __future__ import annotations

import os
from typing import Any

import pytest

import quality

ELEMENTS = int(os.environ.get("SHOAL_BENCH_QUALITY_ELEMENTS", 2**20))
PARTICIPANTS = 10


@pytest.mark.parametrize("source", quality.SOURCES)
@pytest.mark.parametrize("bits", [8, 12, 16, 32])
def test_secure(benchmark: Any, bits: int, source: str) -> None:
    def measure() -> dict[str, float]:
        independent = quality.updates(source, ELEMENTS, PARTICIPANTS, aligned=False)
        aligned = quality.updates(source, ELEMENTS, PARTICIPANTS, aligned=True)
        return {
            "NMSE, one update": quality.secure_nmse(independent, bits, alone=True),
            "NMSE, mean of 10 independent": quality.secure_nmse(independent, bits),
            "NMSE, mean of 10 aligned": quality.secure_nmse(aligned, bits),
            "aligned, scales 0.7 x": quality.secure_nmse(aligned, bits, 0.7),
            "independent, scales 1.5 x": quality.secure_nmse(independent, bits, 1.5),
        }

    found = benchmark.pedantic(measure, rounds=1)
    # in a ring of 32 bits all that is left is the rounding of float32
    assert 0 < found["NMSE, mean of 10 aligned"] < max(found["NMSE, mean of 10 independent"], 1e-12) < 2e-3
    benchmark.extra_info.update({"bits": f"{bits:.2f}", **{key: f"{value:.3g}" for key, value in found.items()}})


@pytest.mark.parametrize("source", quality.SOURCES)
@pytest.mark.parametrize("codec", quality.PLAIN)
def test_plain(benchmark: Any, codec: str, source: str) -> None:
    def measure() -> tuple[float, float, float, float]:
        independent = quality.updates(source, ELEMENTS, PARTICIPANTS, aligned=False)
        aligned = quality.updates(source, ELEMENTS, PARTICIPANTS, aligned=True)
        return (*quality.plain_nmse(independent, codec), quality.plain_nmse(aligned, codec)[2])

    bits, single, mean, alike = benchmark.pedantic(measure, rounds=1)
    assert 0 < mean < single < 1 and 0 < alike < 1
    benchmark.extra_info.update(
        {
            "bits": f"{bits:.2f}",
            "NMSE, one update": f"{single:.3g}",
            "NMSE, mean of 10 independent": f"{mean:.3g}",
            "NMSE, mean of 10 aligned": f"{alike:.3g}",
        }
    )
