"""The sub-commands of `shoal`, as typer sees them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from shoal import __version__
from shoal.cli import (
    best,
    demo,
    doctor,
    evaluate,
    founding,
    inspect,
    keys,
    ledger,
    members,
    merge,
    node,
    rules,
    status,
    update,
)

app = typer.Typer(
    name="shoal",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Merge models that were trained apart: ONNX in, ONNX out.",
)
app.command("merge")(merge.merge)
app.command("diff")(update.diff)
app.command("apply")(update.apply)
app.command("inspect")(inspect.inspect)
app.command("eval")(evaluate.evaluate)
app.command("rules")(rules.rules)
app.command("demo")(demo.demo)
app.command("keys")(keys.keys)
app.command("init")(founding.init)
app.command("join")(founding.join)
app.command("node")(node.node)
app.command("submit")(node.submit)
app.command("status")(status.status)
app.command("best")(best.best)
app.command("doctor")(doctor.doctor)
app.add_typer(members.app, name="members")
app.add_typer(ledger.app, name="ledger")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"shoal {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback with an error (anywhere in the line).")
    ] = False,
) -> None:
    """Merge models that were trained apart: ONNX in, ONNX out."""
