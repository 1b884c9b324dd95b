"""Accuracy of every coding, and bytes on the wire; the time is that of the measurement and says nothing.

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
            "NMSE, mean of 10 independent": quality.secure_nmse(independent, bits),
            "NMSE, mean of 10 aligned": quality.secure_nmse(aligned, bits),
            "aligned, scales 0.7 x": quality.secure_nmse(aligned, bits, 0.7),
            "independent, scales 1.5 x": quality.secure_nmse(independent, bits, 1.5),
        }

    found = benchmark.pedantic(measure, rounds=1)
    # in a ring of 32 bits all that is left is the rounding of float32
    assert 0 < found["NMSE, mean of 10 aligned"] < max(found["NMSE, mean of 10 independent"], 1e-12) < 2e-3
    benchmark.extra_info.update({key: f"{value:.3g}" for key, value in found.items()})


@pytest.mark.parametrize("source", quality.SOURCES)
@pytest.mark.parametrize("codec", quality.PLAIN)
def test_plain(benchmark: Any, codec: str, source: str) -> None:
    def measure() -> tuple[float, float, float]:
        return quality.plain_nmse(quality.updates(source, ELEMENTS, PARTICIPANTS, aligned=False), codec)

    bits, single, mean = benchmark.pedantic(measure, rounds=1)
    assert 0 < single < 1 and mean < single
    benchmark.extra_info.update(
        {
            "bits": f"{bits:.2f}",
            "NMSE, one update": f"{single:.3g}",
            "NMSE, mean of 10 independent": f"{mean:.3g}",
        }
    )


@pytest.mark.parametrize("participants", [3, 10, 30, 100])
def test_bytes(benchmark: Any, participants: int) -> None:
    found = benchmark.pedantic(lambda: quality.wire_bytes(participants, ELEMENTS), rounds=1)
    f = (participants - 1) / participants
    assert found["both legs"] == pytest.approx(2 * found["bits"] / 8 * f, rel=0.01)
    benchmark.extra_info.update(
        {
            "bits": int(found["bits"]),
            "bytes sent for each parameter, both legs": f"{found['both legs']:.4f}",
            "with shares, seeds, statements": f"{found['all']:.4f}",
        }
    )
