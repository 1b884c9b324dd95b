"""Faults on demand: the variable is read as it is written down, each action does what it says, each point is reached."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from shoal import failpoint
from shoal.errors import ArgumentError
from shoal.failpoint import POINTS, Fault, Plan, parse

SOURCE = Path(failpoint.__file__).parent


def calls() -> Counter[str]:
    """Names with which `failpoint.reach` is called in the source."""
    found: Counter[str] = Counter()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoint.reach":
                assert len(node.args) == 1 and isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}"
                found[node.args[0].value] += 1
    return found


def test_every_point_stands_at_one_place_and_every_place_in_the_table() -> None:
    assert calls() == Counter(list(POINTS))
    assert all(POINTS.values()) and len(POINTS) >= 40


def test_faults_are_read() -> None:
    assert parse("") == ()
    assert parse("plan.open:1:kill,send.bulk:20:delay=50,handover:*:error") == (
        Fault("plan.open", 1, "kill"),
        Fault("send.bulk", 20, "delay", 0.05),
        Fault("handover", 0, "error"),
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("plan.opened:1:kill", "failpoint.name"),
        ("plan.open", "failpoint.name"),
        ("plan.open:1:kill:now", "failpoint.name"),
        ("plan.open:0:kill", "failpoint.nth"),
        ("plan.open:-1:kill", "failpoint.nth"),
        ("plan.open:²:kill", "failpoint.nth"),
        ("plan.open:1:die", "failpoint.action"),
        ("plan.open:1:delay", "failpoint.action"),
        ("plan.open:1:delay=600001", "failpoint.action"),
    ],
)
def test_what_is_no_fault_is_refused_by_name(text: str, code: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        parse(text)
    assert raised.value.code == code and text.split(":")[0] in str(raised.value)


def test_a_fault_comes_at_its_time_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(parse("plan.open:3:error,handover:*:error"))
    plan.reach("plan.open")
    plan.reach("send.bulk")
    plan.reach("plan.open")
    with pytest.raises(OSError, match=r"failpoint plan\.open"):
        plan.reach("plan.open")
    plan.reach("plan.open")
    for _ in range(2):
        with pytest.raises(OSError, match="failpoint handover"):
            plan.reach("handover")
    assert capsys.readouterr().err.splitlines()[0] == "failpoint plan.open, time 3: error"


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_a_process_kills_or_stops_itself(action: str, number: int) -> None:
    code = "from shoal import failpoint; failpoint.arm(); failpoint.reach('plan.open'); print('went on')"
    child = subprocess.Popen(
        [sys.executable, "-c", code], env={"SHOAL_FAILPOINT": f"plan.open:1:{action}", "PYTHONPATH": str(SOURCE.parent)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if action == "stop":
        import os

        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == number
        child.send_signal(signal.SIGCONT)
        assert child.communicate(timeout=30)[0] == "went on\n"
    else:
        out, err = child.communicate(timeout=30)
        assert (child.returncode, out) == (-number, "") and "failpoint plan.open, time 1: kill" in err


def test_the_command_line_refuses_a_point_that_is_not_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "rules"], env={"SHOAL_FAILPOINT": "nowhere:1:kill", "PYTHONPATH": str(SOURCE.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: SHOAL_FAILPOINT: 'nowhere:1:kill': there is no such")


def test_without_the_variable_nothing_happens() -> None:
    failpoint.arm("")
    for name in POINTS:
        failpoint.reach(name)
