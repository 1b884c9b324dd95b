"""What `shoal status` makes of what a node says."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from shoal.cli.commands import app
from shoal.cli.status import View, doing, time_left
from shoal.ledger.scores import Mean
from shoal.swarm.door import Door
from shoal.swarm.node import MemberStatus, Status

BASE = Status(
    "aa" * 32, "study", 7, 3, 900, 12, "UPLOAD", False, True, "bb" * 32, 5_000_000, 2_000,
    [MemberStatus("north", "aa" * 32, True, True, True), MemberStatus("so\x1buth", "cc" * 32, False, False, False)],
    ["info: fine", "warning: slow\nlink", "fault: broken"], {},
    {"share": 8.0, "upload": 16.0, "reduce": 4.0, "commit": 2.0, "train": 100.0}, {"merged": 3, "missed": 1},
    phase_s=1.5, measured=[Mean(7, "auc", 0.8123, 2, 600)], best=Mean(5, "auc", 0.9, 2, 600),
)  # fmt: skip


def changed(**more: Any) -> Status:
    return msgspec.structs.replace(BASE, **more)


def drawn(view: View, found: Status, now_s: float) -> str:
    out = io.StringIO()
    Console(file=out, width=150, markup=False, highlight=False).print(view.of(found, now_s))
    return out.getvalue()


def test_what_is_shown() -> None:
    text = drawn(View(), BASE, 10)
    for words in (
        "round 7 certified, slot 12, upload for 1.5 s, about 4.0 s left", "term 3, 900 entries", "5.0 MB sent",
        "waits to be merged", "auc 0.8123 (2 sites, 600 samples)", "round 5: auc 0.9000", "leads", "learner",
        "NOT CONNECTED", "fault: broken", "warning: slow\\nlink", "so\\x1buth",
    ):  # fmt: skip
        assert words in text, text
    assert "\x1b" not in text


def test_rates_are_of_the_last_seconds() -> None:
    view = View()
    assert "/s" not in drawn(view, BASE, 10)
    text = drawn(view, changed(sent_bytes=9_000_000, received_bytes=4_000), 12)
    assert "2.0 MB/s out" in text and "1.0 kB/s in" in text
    text = drawn(view, changed(sent_bytes=9_000_000, received_bytes=4_000), 16.5)
    assert "0 B/s out" in text
    assert "/s out" not in drawn(view, changed(sent_bytes=10), 17), "a node that was restarted has no rate"


def test_time_left() -> None:
    assert time_left(BASE) == pytest.approx(4 - 1.5 + 1 + 0.5)
    assert time_left(changed(phase_s=60.0)) == pytest.approx(1.5), "what lasts longer than usual ends any moment"
    assert time_left(changed(results={})) is None and time_left(changed(phase="LINGER")) is None
    assert doing(changed(slot=-1, phase="")) == "between rounds"
    assert doing(changed(phase="")) == "slot 12, not followed here"


def test_a_node_is_asked(tmp_path: Path) -> None:
    class Running:
        def status(self) -> Status:
            return BASE

    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "site.toml").write_text('name = "north"\n')
    with Door(Running(), tmp_path / "data"):  # type: ignore[arg-type]
        done = CliRunner().invoke(app, ["status", str(tmp_path / "site.toml")])
        assert done.exit_code == 0 and "slot 12" in done.output
        done = CliRunner().invoke(app, ["status", str(tmp_path / "site.toml"), "--format", "json"])
        assert json.loads(done.output) == msgspec.to_builtins(BASE)
    assert not [t for t in threading.enumerate() if t.name.startswith("shoal")]
