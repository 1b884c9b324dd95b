"""shoal demo: four simulated hospitals, real patients' data, one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.show import Format, line, note, print_json, prose, table
from shoal.errors import MachineError, shown

if TYPE_CHECKING:
    from shoal.study.data import Cohort
    from shoal.study.demo import Result
    from shoal.study.score import Estimate

#: files that the demo leaves in its folder, beside the models
PICTURE, NUMBERS = "auc.png", "results.json"


def demo(
    data: Annotated[
        str | None, typer.Option("--data", help="flchain (7,874 people) or wdbc (569); flchain if it is installed.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=1000, help="Rounds of training and merging.")] = 15,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**31, help="Of the split, the network and the training.")
    ] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for models, plot and numbers.")] = Path("demo-out"),
    method: Annotated[str, typer.Option("--method", help="Rule of the merge.")] = "mean",
    swarm: Annotated[
        bool, typer.Option("--swarm/--no-swarm", help="Also as a swarm: a node process for each hospital.")
    ] = True,
    format: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """Show the main job on real patients: four simulated hospitals, alone, federated, as a swarm, and pooled."""
    from shoal.study.demo import plan_for, run_demo

    cohort = _cohort(data)
    tell = note if format is Format.text and sys.stderr.isatty() else _silent
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            "output.folder", f"{shown(str(out))}: {error.strerror}; expected a folder to write in"
        ) from error
    result = run_demo(cohort, plan_for(cohort, rounds, seed, method), out, tell, swarm)
    plotted = _plot(result, out / PICTURE)
    numbers = result.as_json() | {"plot": str(out / PICTURE) if plotted else None}
    with (out / NUMBERS).open("w", encoding="utf-8") as stream:
        print_json(numbers, stream)
    if format is Format.json:
        print_json(numbers)
    else:
        _show(result, out, plotted)


def _silent(_: str) -> None:
    pass


def _cohort(name: str | None) -> Cohort:
    """The cohort asked for; without a wish FLChain, and if that is not installed, the one that scikit-learn ships."""
    from shoal.study.data import load_cohort

    if name is not None:
        return load_cohort(name)
    try:
        return load_cohort("flchain")
    except MachineError as error:
        note(f"note: {error}; going on with --data wdbc")
        return load_cohort("wdbc")


def _plot(result: Result, path: Path) -> bool:
    """True if the picture was saved; without matplotlib the numbers are worth showing all the same."""
    from shoal.study.plot import save_plot

    try:
        save_plot(result, path)
    except MachineError as error:
        note(f"note: {error}")
        return False
    return True


def _show(result: Result, out: Path, plotted: bool) -> None:
    prose(result.source)
    prose(
        f"{result.patients} people, {result.events:.1%} with {result.question}; {result.held_out} held out from all "
        f"training; {result.rounds} rounds, rule {result.method}, seed {result.seed}"
    )
    line("")
    about = "; ".join(f"{home.site}: {home.about}" for home in result.homes)
    prose(f"The hospitals (simulated): {about}.")
    line("")
    columns = [("model", "left"), ("trained on", "right"), ("AUC [95 %]", "left"), ("merging gains [95 %]", "left")]
    rows = [
        [_name(r.model), f"{r.trained}", _estimate(r.everyone, ""), _estimate(r.gain, "+") if r.gain else "-"]
        for r in result.rows
    ]
    table(columns, rows, f"on all {result.held_out} held-out patients")
    home = [("site", "left"), ("held out", "right"), ("outcome", "right"), ("own", "right")]
    home += [("merged", "right"), ("pooled", "right"), ("merging gains [95 %]", "left")]
    rows = [
        [h.site, f"{h.test}", f"{h.events:.1%}", _auc(h.own), _auc(h.merged), _auc(h.pooled), _estimate(h.gain, "+")]
        for h in result.homes
    ]
    table(home, rows, "AUC on each hospital's own held-out patients")
    _close(result, out, plotted)


def _close(result: Result, out: Path, plotted: bool) -> None:
    from shoal.study.demo import conclusion

    prose(conclusion(result))
    line("")
    if result.swarm is not None:
        _show_swarm(result)
    prose(
        "The patients are real; the hospitals are simulated: one cohort, dealt out by a seeded draw that prefers other "
        "patients for each. Real hospitals also differ in devices, coding and care, so take the gains as an "
        "illustration, not as evidence."
    )
    line("")
    if plotted:
        line(f"plot     {shown(str(out / PICTURE))}")
    line(f"numbers  {shown(str(out / NUMBERS))}")
    line(f"model    {shown(result.merged_file)}")
    line("next:")
    line(f"  {shown(result.command, 2000)}")
    line(f"  shoal inspect {shown(result.merged_file)}")
    if result.swarm is not None:
        line(f"  shoal ledger show {shown(result.swarm.ledger)}")
        line(f"  shoal ledger verify {shown(result.swarm.ledger)} --genesis {result.swarm.genesis}")
    line(f"  shoal demo --seed {result.seed + 1} --method geometric-median")


def _show_swarm(result: Result) -> None:
    swarm = result.swarm
    assert swarm is not None
    how = "sums under masks: nobody saw another's update" if swarm.secure else "in the clear"
    killed = f"; hospital {swarm.killed} was killed in round {swarm.killed_in} and came back" if swarm.killed else ""
    prose(
        f"The swarm: {len(result.homes)} node processes over ZeroMQ with CURVE, {how}; {swarm.rounds} rounds certified"
        f"{killed}. Its ledger of {swarm.entries} entries was verified."
    )
    line("")


def _name(model: str) -> str:
    return model if model in ("federated", "swarm", "pooled") else f"{model} alone"


def _auc(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _estimate(at: Estimate, sign: str) -> str:
    if at.value is None or at.low is None or at.high is None:
        return "not defined"
    return f"{at.value:{sign}.3f} [{at.low:{sign}.3f}, {at.high:{sign}.3f}]"
