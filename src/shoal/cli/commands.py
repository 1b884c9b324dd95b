"""The sub-commands of `shoal`, as typer sees them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from shoal import __version__

#: command -> module of shoal.cli and function, in the order of the help
COMMANDS: Final = {
    "merge": ("merge", "merge"),
    "diff": ("update", "diff"),
    "apply": ("update", "apply"),
    "inspect": ("inspect", "inspect"),
    "eval": ("evaluate", "evaluate"),
    "rules": ("rules", "rules"),
    "demo": ("demo", "demo"),
    "keys": ("keys", "keys"),
    "init": ("founding", "init"),
    "join": ("founding", "join"),
    "node": ("node", "node"),
    "submit": ("node", "submit"),
    "status": ("status", "status"),
    "best": ("best", "best"),
    "doctor": ("doctor", "doctor"),
}
#: modules of shoal.cli whose commands are a group of that name
GROUPS: Final = ("members", "ledger")


def app_for(words: Sequence[str]) -> typer.Typer:
    """The command line for these words: all commands, or just the one that the words begin with.

    To load all of them and read their options takes as long as many a command does.
    """
    app = typer.Typer(
        name="shoal",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Merge models that were trained apart: ONNX in, ONNX out.",
    )
    app.callback()(_options)
    one = words[0] if words and (words[0] in COMMANDS or words[0] in GROUPS) else None
    for name, (module, function) in COMMANDS.items():
        if one in (None, name):
            app.command(name)(getattr(import_module(f"shoal.cli.{module}"), function))
    for name in GROUPS:
        if one in (None, name):
            app.add_typer(import_module(f"shoal.cli.{name}").app, name=name)
    return app


def __getattr__(name: str) -> Any:
    """``app``: `app_for` of no words."""
    if name != "app":
        raise AttributeError(name)
    return app_for(())


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"shoal {__version__}\n")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback with an error (anywhere in the line).")
    ] = False,
) -> None:
    """Merge models that were trained apart: ONNX in, ONNX out."""
