"""Rounds of four node processes over loopback, beside gloo's all-reduce and hivemind's averager of the same size.

round      from handing in the update at the first node until the certified model is in force, and in its file, at the
           last one; sites are in /dev/shm where there is one, so that no disk is in it
sealed     as nodes run: chunks under AES-256-GCM
unsealed   chunks as they are, which only a measurement may ask for: gloo and hivemind encrypt nothing either
cpu        seconds of all four processes; "to gloo" of them: gloo's to ours
formula    bytes that a peer sends for each parameter: 2 (n - 1) / n words (docs/PROTOCOL.md)

SHOAL_BENCH_SWARM_MB  size of the model (default 100; 0.4 when benchmarks are disabled)
SHOAL_TORCH           a Python that has torch, for gloo;  SHOAL_HIVEMIND one that has hivemind 1.1.12

All take turns, the first two of each not counted; figures are medians, ratios those of the medians of one run.  The
processes share the machine's cores, so what a round costs all of them decides.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zmq", reason="needs pyzmq")

import limited_net
from groups import PEERS, Group, gloo, hivemind, swarm
from limited_net import LimitedNet
from shoal.swarm.site import UNSEALED

WARM = 2
FORMULA = 2 * (PEERS - 1) / PEERS
MBIT = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    yield made
    shutil.rmtree(made)


def elements_of(benchmark: Any) -> int:
    megabytes = 0.4 if benchmark.disabled else float(os.environ.get("SHOAL_BENCH_SWARM_MB", "100"))
    return int(megabytes * 1e6 / 4) // 8 * 8


def take_turns(benchmark: Any, groups: dict[str, Group], turns: int = 5) -> dict[str, dict[str, float]]:
    """Medians of each."""
    turns = 1 if benchmark.disabled else turns
    found: dict[str, list[dict[str, float]]] = {name: [] for name in groups}

    def run() -> None:
        for turn in range(WARM + turns):
            for name, one in groups.items():
                took = one.turn()
                if turn >= WARM:
                    found[name].append(took)

    benchmark.pedantic(run, rounds=1)
    return {
        name: {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}
        for name, rounds in found.items()
    }


def tell(benchmark: Any, found: dict[str, dict[str, float]]) -> None:
    for name, figures in found.items():
        benchmark.extra_info[f"{name}, ms"] = figures["s"] * 1e3
        if figures["cpu s"]:
            benchmark.extra_info[f"{name}, cpu ms"] = figures["cpu s"] * 1e3


def test_plain_round(benchmark: Any, folder: Path) -> None:
    """Who is not there is said to be missing."""
    elements, info = elements_of(benchmark), benchmark.extra_info
    torch, python = os.environ.get("SHOAL_TORCH", ""), os.environ.get("SHOAL_HIVEMIND", "")
    with ExitStack() as stack:
        groups = {
            "sealed": stack.enter_context(swarm(folder / "sealed", elements, secure=False)),
            "unsealed": stack.enter_context(
                swarm(folder / "unsealed", elements, secure=False, environment=dict([UNSEALED]))
            ),
        }
        if torch:
            groups["gloo"] = stack.enter_context(gloo(torch, elements))
        if python:
            groups["hivemind"] = stack.enter_context(hivemind(python, elements))
        found = take_turns(benchmark, groups)
    tell(benchmark, found)
    info["bytes to the formula"] = found["sealed"]["bytes"] / (4 * FORMULA * elements)
    info["sealed to unsealed"] = found["unsealed"]["s"] / found["sealed"]["s"]
    for other, variable in (("gloo", "SHOAL_TORCH"), ("hivemind", "SHOAL_HIVEMIND")):
        missing = f"not measured: {variable} names no Python"
        info[f"unsealed to {other}"] = found[other]["s"] / found["unsealed"]["s"] if other in found else missing
    if torch:
        info["unsealed to gloo, cpu"] = found["gloo"]["cpu s"] / found["unsealed"]["cpu s"]


def test_secure_round_over_slow_links(benchmark: Any, folder: Path) -> None:
    """Each peer behind a link of 1 Gbit/s each way; words of 8 bits beside gloo's float32."""
    torch, why = os.environ.get("SHOAL_TORCH", ""), limited_net.missing()
    if why or not torch:
        pytest.skip(why or "SHOAL_TORCH names no Python with torch")
    elements, info = elements_of(benchmark), benchmark.extra_info
    with ExitStack() as stack:
        nets = [stack.enter_context(LimitedNet(PEERS, MBIT)) for _ in range(2)]
        groups = {
            "secure": stack.enter_context(swarm(folder / "secure", elements, secure=True, net=nets[0])),
            "gloo": stack.enter_context(gloo(torch, elements, nets[1])),
        }
        found = take_turns(benchmark, groups)
    tell(benchmark, found)
    info["bits of a word"] = round(8 * found["secure"]["bytes"] / (FORMULA * elements))
    info["bytes to the formula of 8 bits"] = found["secure"]["bytes"] / (FORMULA * elements)
    info["secure to gloo"] = found["gloo"]["s"] / found["secure"]["s"]


def test_small_round(benchmark: Any, folder: Path) -> None:
    """A model of 10,000 parameters: what a round costs beside its bytes and its syncs."""
    with ExitStack() as stack:
        groups = {
            name: stack.enter_context(swarm(folder / name, 10_000, secure=name == "secure"))
            for name in ("plain", "secure")
        }
        tell(benchmark, take_turns(benchmark, groups, 20))
