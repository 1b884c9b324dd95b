"""shoal node and shoal submit: a site's node, and how a program beside it hands it a model."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.log import Log, LogForm
from shoal.cli.show import Format, line, print_json
from shoal.errors import MachineError, shown

if TYPE_CHECKING:
    from shoal.config import Site
    from shoal.swarm.door import Ended
    from shoal.swarm.node import Node, Status

#: settings of the site, where the command line names none
SETTINGS = Path("site.toml")

_Json = Annotated[Format, typer.Option("--format", help="text or json.")]
_Where = Annotated[Path, typer.Option("--site", "-s", help="This site's settings.", readable=False)]


def node(
    settings: Annotated[Path, typer.Argument(help="This site's settings.", readable=False)] = SETTINGS,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="The swarm's base model; needed at the first start.", readable=False),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="HOST:PORT", help="Where Prometheus may ask; else as the settings say."),
    ] = None,
    log: Annotated[LogForm, typer.Option("--log", help="text, or json: one object a line.")] = LogForm.text,
) -> None:
    """Run this site's node: it takes part in rounds until it is stopped (Ctrl-C, SIGTERM), and goes on where it was.

    Stopped, it lets the round that it is in end, hands over what it leads, and leaves with exit code 0. The swarm goes
    on, and the site catches up when it is back.
    """
    from shoal.cli.main import Stopped
    from shoal.config import read_site
    from shoal.swarm.door import Door
    from shoal.swarm.site import open_node

    site = read_site(settings)
    running = open_node(site, model)
    said = Log(log, site.name, lambda: _round(running))
    running.on_notice = said.notice
    where = site.metrics.listen if metrics is None else metrics
    with running, Door(running, Path(site.data)), _metrics(running, site.name, where):
        status = _first(running)
        said.say("info", f"{site.name} of {status.swarm}: round {status.round}", "node.started")
        seen, leader = status.round, ""
        try:
            while running.failed is None:
                time.sleep(0.2)
                now = running.status()
                assert now is not None
                leads = next((m.name for m in now.members if m.leads), "")
                if leads != leader:
                    leader = leads
                    told = f"{leads} leads, term {now.term}" if leads else "nobody leads"
                    said.say("info", told, "leader.changed")
                if now.round != seen:
                    seen = now.round
                    said.say("info", f"round {now.round} certified, model {now.model[:16]}", "round.certified")
        except Stopped:
            said.say("info", f"{site.name} leaves", "node.stopped")
            running.leave(site.times.progress_timeout_s)
            return
    raise running.failed


def _round(running: Node) -> int:
    status = running.status()
    return 0 if status is None else status.round


def _metrics(running: Node, site: str, listen: str) -> AbstractContextManager[object]:
    if not listen:
        return nullcontext()
    from shoal.swarm.metrics import Metrics

    return Metrics(running.status, site, listen)


def _first(running: Node) -> Status:
    for _ in range(500):
        status = running.status()
        if status is not None:
            return status
        time.sleep(0.02)
    raise MachineError("node.start", "the node did not come up within 10 s")


def submit(
    local: Annotated[Path, typer.Argument(help="The model after training (ONNX).", show_default=False, readable=False)],
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Samples that it was trained on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the merged model.", readable=False)],
    site: _Where = SETTINGS,
    wait: Annotated[float | None, typer.Option("--wait", min=0, help="Seconds to wait for the round.")] = None,
    format: _Json = Format.text,
) -> None:
    """Hand a model to this site's node, wait for the merged one, write it in the form of the model handed in."""
    from shoal.config import read_site
    from shoal.model.layout import selects
    from shoal.model.model import load
    from shoal.swarm.door import Caller, Ended, Submit

    settings = read_site(site)
    wait_s = settings.times.submit_wait_s if wait is None else wait
    with load(local) as mine, Caller(Path(settings.data)) as caller:
        caller.ask(Submit(str(local.resolve()), samples))
        ended = _wait(caller, settings, wait_s)
        assert isinstance(ended, Ended)
        with load(ended.path) as merged:
            if merged.digest() != ended.digest:
                raise MachineError("submit.changed", "another round ended meanwhile; the node's model is newer")
            for name in merged:
                if selects(name, (), settings.exclude):
                    mine[name] = merged[name]
            mine.save(output)
    if format is Format.json:
        facts = {"output": str(output), "round": ended.round, "digest": ended.digest.hex()}
        print_json({**facts, "took_part": ended.took_part})
        return
    line(f"round {ended.round}: {shown(str(output))}, model {ended.digest.hex()[:16]}")
    if not ended.took_part:
        line("this site's update came too late and is not in it; train from this model")


def _wait(caller: object, settings: Site, wait_s: float) -> Ended:
    """Wait for the round's end with a line that says what is going on, for a person who looks."""
    from shoal.swarm.door import Caller, Ended, Look, Looked

    assert isinstance(caller, Caller)
    until = time.monotonic() + wait_s
    shown_one = sys.stderr.isatty()
    while time.monotonic() < until:
        answer = caller.answer(0.5)
        if isinstance(answer, Ended):
            return answer
        if isinstance(answer, Looked) and answer.status is not None and shown_one:
            status = answer.status
            phase = f"slot {status.slot} {status.phase.lower()}" if status.phase else "waiting for the others"
            sys.stderr.write(f"\r\x1b[Kround {status.round + 1}: {phase}")
            sys.stderr.flush()
        if answer is None and shown_one:
            caller.ask(Look())
    raise MachineError("submit.waited", f"{settings.name}: no merged model after {wait_s:g} s; the update still waits")
