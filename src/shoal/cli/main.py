"""The command `shoal`: its sub-commands, and what becomes of errors.

Exit codes: 0 done; 1 an input, the machine or the swarm is at fault: one line `error: ...` on standard error (and with
`--format json` an object {"error": {"code", "message"}} on standard output); 2 wrong usage; 130 and 143 interrupted.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from typing import Any, NoReturn

from shoal.errors import ShoalError, shown

#: characters of an error line: a message may list differences, but must stay one line
LINE_MAX = 4000
#: objects made and kept before Python looks for garbage; at its own 700 that is a tenth of the time of a short command
GARBAGE_LOOKED_FOR = 20_000


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived.  Raised so that a half-written output is taken away on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run() -> NoReturn:
    """The entry point: run the command line and leave the process with its exit code."""
    gc.set_threshold(GARBAGE_LOOKED_FOR)
    _catch_signals()
    _make_printable()
    words = sys.argv[1:]
    own = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in own or os.environ.get("SHOAL_DEBUG") == "1"
    words = [w for i, w in enumerate(words) if w != "--debug" or i >= len(own)]
    code = 1
    try:
        code = _run(words, debug)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    gc.freeze()  # what is left goes with the process: nobody needs to look through it for cycles
    sys.exit(code)


def _make_printable() -> None:
    """Output may be closed, or of an encoding without the letters of a tensor's name; neither is a reason to fail."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (open as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _catch_signals() -> None:
    """The first SIGINT or SIGTERM stops the work; later ones do not disturb the tidying up."""

    def stop(number: int, _: object) -> None:
        for caught in (signal.SIGINT, signal.SIGTERM):
            signal.signal(caught, signal.SIG_IGN)
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        # Whoever started us with a signal ignored (nohup) wants it so.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _run(words: list[str], debug: bool) -> int:
    try:
        # Here, not at the top: a signal that comes while the commands are loaded is caught, too.
        from shoal import failpoint
        from shoal.cli.commands import app_for

        failpoint.arm()
        code = app_for(words)(args=words, prog_name="shoal", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        raise
    except Stopped as stopped:
        word = "interrupted" if stopped.number == signal.SIGINT else "terminated"
        _report(word, word, words)
        return 128 + stopped.number
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        return _failed(error, words)


def _failed(error: Exception, words: list[str]) -> int:
    if isinstance(error, ShoalError):
        _report(error.code, str(error), words)
        return 1
    # typer's own errors: their classes moved between versions, their attributes did not.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        return _usage(error, words)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        _report("machine.os", f"{where}{error.strerror or error}", words)
        return 1
    if isinstance(error, MemoryError):
        _report("machine.memory", "not enough memory", words)
        return 1
    _report(
        "internal", f"internal fault: {type(error).__name__}: {error} (--debug shows where; please report it)", words
    )
    return 1


def _usage(error: Any, words: list[str]) -> int:
    message = error.format_message()
    if not message:
        # no_args_is_help: typer has printed the help already
        return int(error.exit_code)
    _report("usage", message, words)
    context = getattr(error, "ctx", None)
    sys.stderr.write(f"try: {context.command_path if context else 'shoal'} --help\n")
    return int(error.exit_code)


def _report(code: str, message: str, words: list[str]) -> None:
    text = shown(message, LINE_MAX)
    sys.stderr.write(f"error: {text}\n")
    if any(w == "--format=json" or words[i : i + 2] == ["--format", "json"] for i, w in enumerate(words)):
        from shoal.cli.show import print_json

        print_json({"error": {"code": code, "message": text}})
