"""What the command line does before and after a command: help, versions, errors, signals, pipes, start-up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_nets import save_net

from shoal import __version__
from shoal.cli import evaluate, main, merge
from shoal.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def python(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60, env=ENVIRONMENT, **options
    )  # type: ignore[call-overload]


def test_version_and_help(shoal: Callable) -> None:
    assert shoal("--version").out == f"shoal {__version__}\n"
    done = shoal("--help")
    assert done.code == 0
    for command in ("merge", "inspect", "eval", "rules", "demo"):
        assert command in done.out
        assert shoal(command, "--help").code == 0


def test_a_command_that_is_loaded_alone_is_the_same() -> None:
    from typer.testing import CliRunner

    from shoal.cli.commands import COMMANDS, GROUPS, app, app_for

    whole = app
    for name in (*COMMANDS, *GROUPS):
        done, expected = (CliRunner().invoke(found, [name, "--help"]) for found in (app_for([name]), whole))
        assert done.exit_code == 0 and done.output == expected.output
        (only,) = [*app_for([name]).registered_commands, *app_for([name]).registered_groups]
        assert only.name == name


HEAVY = {"numpy", "onnx", "onnxruntime", "matplotlib", "sklearn", "scipy", "numba", "yaml", "google"}


@pytest.mark.parametrize(
    ("words", "allowed"), [(["--help"], set()), (["rules"], {"numpy"}), (["merge", "gone.onnx", "-o", "x"], {"numpy"})]
)
def test_heavy_modules_are_imported_only_where_used(words: list[str], allowed: set[str]) -> None:
    code = (
        "import sys\nfrom shoal.cli import main\n"
        f"sys.argv = ['shoal', *{words!r}]\n"
        "try:\n    main.run()\nexcept SystemExit:\n    pass\n"
        f"print('loaded', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = python("-c", code)
    loaded = done.stdout.splitlines()[-1].removeprefix("loaded ")
    assert set(json.loads(loaded.replace("'", '"'))) <= allowed, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nope"], "nope"),
        (["merge", "a.onnx", "--nope"], "--nope"),
        (["merge", "a.onnx"], "-o"),
        (["merge", "-o", "x.onnx"], "models"),
        (["merge", "a.onnx", "-o", "x", "--threads", "-1"], "--threads"),
        (["merge", "a.onnx", "-o", "x", "--format", "xml"], "--format"),
        (["merge", "a.onnx", "r.yml", "--recipe", "r.yml", "-o", "x"], "not both"),
        (["inspect"], "file"),
        (["eval", "m.onnx"], "data"),
        (["demo", "--rounds", "0"], "--rounds"),
    ],
)
def test_wrong_usage_is_2(shoal: Callable, words: list[str], says: str) -> None:
    done = shoal(*words)
    assert done.code == 2 and done.out == ""
    first, second = done.err.splitlines()
    assert first.startswith("error: ") and says in first.lower() and second.startswith("try: shoal")


def test_whether_a_file_can_be_read_is_no_question_of_usage(
    shoal: Callable, nets: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing permission is the machine's fault (1), found when the file is opened; typer's own check would say 2."""
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    for words in (
        ["merge", "a.onnx", "b.onnx", "-o", "a.onnx", "--base", "base.onnx", "--outer", "sgd"],
        ["inspect", "a.onnx"],
        ["rules"],
    ):
        assert shoal(*words).code == 0
    (tmp_path / "r.yml").write_text("merge_method: linear\nmodels: [{model: a.onnx}, {model: b.onnx}]\n")
    assert shoal("merge", "--recipe", "r.yml", "-o", "o.onnx").code == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_terminal_has_no_letters_for(encoding: str, tmp_path: Path) -> None:
    save_net(tmp_path / "größe.onnx", 1, name="größe.重み")
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "inspect", "größe.onnx"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        env={**ENVIRONMENT, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0 and done.stderr == b""
    assert "größe.重み".encode(encoding, "backslashreplace") in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output_does_not_stop_a_merge(closed: str, nets: list[np.ndarray], tmp_path: Path) -> None:
    line = f"'{sys.executable}' -m shoal merge a.onnx b.onnx -o o.onnx {closed}"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, timeout=60, env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "o.onnx").exists() and b"Traceback" not in done.stderr


def test_no_words_print_help_and_are_wrong_usage(shoal: Callable) -> None:
    done = shoal()
    assert done.code == 2 and "Usage" in done.out + done.err and "Traceback" not in done.err


def test_usage_errors_in_json(shoal: Callable) -> None:
    done = shoal("merge", "--format=json")
    assert done.code == 2 and done.json["error"]["code"] == "usage"


@pytest.mark.parametrize("words", [["--format", "json"], ["--format=json"]])
def test_errors_in_json(shoal: Callable, tmp_path: Path, words: list[str]) -> None:
    done = shoal("inspect", tmp_path / "gone.onnx", *words)
    line = done.error()
    assert done.json == {"error": {"code": "file.missing", "message": line.removeprefix("error: ")}}


def test_hostile_names_cannot_steer_the_terminal(shoal: Callable, tmp_path: Path) -> None:
    done = shoal("inspect", tmp_path / "\x1b[31m[bold]red\n\u202e.onnx")
    assert r"\x1b[31m[bold]red\n\u202e" in done.error()


def test_tracebacks_only_when_asked(shoal: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in shoal("inspect", "gone.onnx").err
    for words in (["--debug", "inspect", "gone.onnx"], ["inspect", "gone.onnx", "--debug"]):
        done = shoal(*words)
        assert done.code == 1 and "Traceback" in done.err and "InputError" in done.err
    monkeypatch.setenv("SHOAL_DEBUG", "1")
    assert "Traceback" in shoal("inspect", "gone.onnx").err


@pytest.mark.parametrize(
    ("error", "code", "name", "says"),
    [
        (InputError("x.y", "bad\nfile"), 1, "x.y", r"bad\nfile"),
        (PermissionError(13, "Permission denied", "secret.onnx"), 1, "machine.os", "secret.onnx: Permission denied"),
        (MemoryError(), 1, "machine.memory", "not enough memory"),
        (ZeroDivisionError("oops"), 1, "internal", "ZeroDivisionError: oops"),
        (main.Stopped(signal.SIGINT), 130, "interrupted", "interrupted"),
        (main.Stopped(signal.SIGTERM), 143, "terminated", "terminated"),
    ],
)
def test_every_error_is_one_line(
    shoal: Callable,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    code: int,
    name: str,
    says: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(merge, "_merge_wish", fail)
    done = shoal("merge", "a.onnx", "-o", tmp_path / "o.onnx", "--format", "json")
    assert done.code == code and done.json["error"]["code"] == name
    assert done.err.startswith("error: ") and done.err.count("\n") == 1 and says in done.err


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "rules", "--format", "json"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )
    os.close(write)
    assert done.returncode == 1 and done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_a_merge_and_leave_nothing(nets: list[np.ndarray], tmp_path: Path, number: signal.Signals) -> None:
    """A rule file that signals its own process, as a person would in mid-merge; the second signal changes nothing."""
    (tmp_path / "o.onnx").write_bytes(b"old")
    (tmp_path / "stop.py").write_text(
        "import os\nimport shoal\nfrom shoal.merge import engine\n\n@shoal.rule\ndef any_rule(values, weights):\n"
        "    return values[0]\n\nrun = engine.Engine.run\n\ndef stop(*words):\n    try:\n"
        f"        os.kill(os.getpid(), {int(number)})\n    finally:\n        os.kill(os.getpid(), {int(number)})\n"
        "    return run(*words)\n\nengine.Engine.run = stop\n"
    )
    before = sorted(tmp_path.iterdir())
    words = ["merge", "a.onnx", "b.onnx", "-o", "o.onnx", "--rule-file", "stop.py", "--method", "mean"]
    done = python("-m", "shoal", *words, cwd=tmp_path)
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    assert (done.returncode, done.stderr) == (128 + number, f"error: {word}\n")
    assert [p for p in sorted(tmp_path.iterdir()) if p.name != "__pycache__"] == before
    assert (tmp_path / "o.onnx").read_bytes() == b"old"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shoal"],
        env={**ENVIRONMENT, "_SHOAL_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "_SHOAL_COMPLETE" in done.stdout and "shoal" in done.stdout


def test_eval_command(shoal: Callable, nets: list[np.ndarray], tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(50, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=(x @ nets[0] > 0).astype(int)[:, 0])
    done = shoal("eval", "a.onnx", "d.npz", "--metric", "auc,accuracy", "--format", "json")
    assert done.json["metrics"] == {"auc": 1.0, "accuracy": 1.0} and done.json["rows"] == 50
    text = shoal("eval", "a.onnx", "d.npz").out
    assert "50 rows" in text and all(name in text for name in ("auc", "accuracy", "f1", "loss"))
    assert "rmse" in shoal("eval", "a.onnx", "d.npz", "--metric", "rmse").error()
    assert evaluate.format_number(0.5) == "0.500000"
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    assert "bad.onnx" in shoal("eval", "bad.onnx", "d.npz").error()


def test_rules_command(shoal: Callable) -> None:
    listed = shoal("rules", "--format", "json").json
    names = {rule["name"] for rule in listed["rules"]}
    assert {"mean", "median", "trimmed-mean", "geometric-median", "krum", "slerp", "ties"} <= names
    assert {o["name"] for o in listed["outer"]} == {"sgd", "momentum", "nesterov", "adam", "yogi", "adagrad"}
    text = shoal("rules").out
    assert all(name in text for name in names)
