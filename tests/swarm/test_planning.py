"""Planning in virtual time (bench/planning.py), tiny: bytes follow the formula, a slow link costs what its bytes need."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
from planning import Case, play
from shoal.swarm import core, fetch, parcel


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("mbits", [20.0, 1000.0])
def test_a_peer_sends_what_the_formula_says(mbits: float, secure: bool) -> None:
    limits = parcel.CHUNK_BYTES, fetch.WINDOW_CHUNKS, core.WINDOW_CHUNKS_ALL
    n, parameters = 4, 400_000
    found = play(Case(n, parameters, mbits, secure))
    f = (n - 1) / n
    expected = parameters * (2 * f + 1 / n if secure else 8 * f)
    assert expected <= found.sent < 1.1 * expected + 50_000
    assert found.round_s >= found.sent * 8 / (mbits * 1e6), "no link carries more than its rate"
    assert found.phases.keys() == {"UPLOAD", "REDUCE", "COMMIT", "LINGER"} | ({"SHARE"} if secure else set())
    assert limits == (parcel.CHUNK_BYTES, fetch.WINDOW_CHUNKS, core.WINDOW_CHUNKS_ALL)


def test_a_slow_link_is_kept_busy_by_what_is_needed() -> None:
    """Not by what is asked for again."""
    found = play(Case(3, 5_000_000, 20.0, False))
    needed = 5_000_000 * 16 / 3
    assert found.sent < 1.25 * needed
    assert found.round_s < 2 * needed * 8 / 20e6
