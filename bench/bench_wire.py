"""Bytes that a participant of a secure slot sends, counted while it runs; the time is that of all participants together.

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
