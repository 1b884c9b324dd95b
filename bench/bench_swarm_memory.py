"""How much memory a node takes beside the training loop: four node processes over loopback.

peak    most resident memory of a process during a round, above what it held before its node was there
after   the same between two rounds
model   bytes of the model; the ratios are to it

SHOAL_BENCH_SWARM_MB  size of the model (default 100; 0.4 when benchmarks are disabled, where the interpreter's own
                      megabytes decide and nothing is asserted)

The first round of a swarm with masks is in a ring of 32 bits, the following ones are in one of 8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zmq", reason="needs pyzmq")

from bench_swarm import elements_of
from groups import Group, check, swarm


def rounds(group: Group, count: int) -> list[list[dict[str, Any]]]:
    found = []
    for _ in range(count):
        ready, told = group.hear_all(), group.step()
        check(ready, told)
        found.append(told)
    return found


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "secure"])
def test_memory_of_a_node(benchmark: Any, tmp_path: Path, secure: bool) -> None:
    elements, count = elements_of(benchmark), 1 if benchmark.disabled else 4
    found: list[list[dict[str, Any]]] = []
    with swarm(tmp_path / "sites", elements, secure=secure, program="memory_site.py") as group:
        benchmark.pedantic(lambda: found.extend(rounds(group, count)), rounds=1)
    model = 4 * elements
    info = benchmark.extra_info
    info["model, MB"] = model / 1e6
    for number, told in enumerate(found, 1):
        info[f"round {number}, peak"] = max(one["peak"] for one in told) / model
    info["after, last"] = max(one["after"] for one in found[-1]) / model
