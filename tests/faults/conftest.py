"""One table at the end of `make faults`: what was done to whom, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROWS: list[dict[str, object]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--pause", type=float, default=6.0, help="seconds for which a process is stopped (full: 60)")
    group.addoption("--table", type=Path, default=None, help="where to write the table of scenarios as JSON")
    group.addoption("--rounds", type=int, default=100, help="rounds of the run that looks for growth")


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """A row of the table; a scenario notes in it what it saw."""
    row: dict[str, object] = {"scenario": request.node.name, "outcome": "did not end", "seconds": 0.0}
    ROWS.append(row)
    began = time.monotonic()
    yield row
    row["seconds"] = round(time.monotonic() - began, 1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    for row in ROWS:
        if row["scenario"] == item.name and report.when == "call":
            row["outcome"] = report.outcome
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not ROWS:
        return
    terminalreporter.section("faults")
    width = max(len(str(row["scenario"])) for row in ROWS)
    for row in ROWS:
        rest = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("scenario", "outcome", "seconds"))
        terminalreporter.write_line(f"{row['scenario']:<{width}}  {row['outcome']:<8} {row['seconds']:6.1f} s  {rest}")
    if config.getoption("--table"):
        config.getoption("--table").write_text(json.dumps(ROWS, indent=2))
