"""shoal best: which certified model did best on the sites' own validation data, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.show import Format, line, print_json, table
from shoal.errors import InputError, shown


def best(
    settings: Annotated[Path, typer.Argument(help="This site's settings.", readable=False)] = Path("site.toml"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the best model.", readable=False)
    ] = None,
    metric: Annotated[str, typer.Option("--metric", help="Which metric decides; default: as the settings say.")] = "",
    round_: Annotated[
        int | None, typer.Option("--round", min=1, help="Write this round's model, if it is kept here.")
    ] = None,
    last: Annotated[int, typer.Option("--last", min=0, help="Rounds to list, newest last; 0: all.")] = 20,
    format: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """Show what the sites measured with each certified model, and write the best one.

    Means are over sites, weighted by the samples that each measured on. A site takes part with [evaluate] in its
    settings; it keeps the models of the two newest rounds and of the best one.
    """
    from shoal.config import read_site
    from shoal.ledger.archive import Archive, latest
    from shoal.ledger.scores import Scores
    from shoal.swarm.referee import held

    site = read_site(settings)
    folder = Path(site.data)
    archive = Archive(folder / "ledger.db")
    try:
        scores = Scores.of(archive)
    finally:
        archive.close()
    state = latest(folder / "ledger.db").state
    deciding = metric or (site.evaluate.best if site.evaluate else "") or next(iter(scores.metrics()), "")
    found = scores.best(deciding)
    if found is None:
        what = f"nobody measured {shown(deciding)}" if deciding else "nobody measured anything yet"
        raise InputError("best.none", f"{shown(str(folder))}: {what}; set [evaluate] data in the sites' settings")
    files = {one.round: one.path for one in held(folder)}
    wanted = found.round if round_ is None else round_
    if output is not None:
        _write(files, wanted, state.models.get(wanted), output)
    rounds = scores.rounds[-last:] if last else scores.rounds
    means = [{m: scores.mean(r, m) for m in scores.metrics()} for r in rounds]
    if format is Format.json:
        facts = [
            {"round": r, "held": r in files, "means": {m: mean.value for m, mean in of.items() if mean is not None}}
            for r, of in zip(rounds, means, strict=True)
        ]
        best_one = {"round": found.round, "value": found.value, "sites": found.sites, "samples": found.samples}
        facts_all = {"metric": deciding, "best": best_one, "rounds": facts}
        print_json({**facts_all, "output": None if output is None else str(output)})
        return
    columns = [("round", "right"), *((m, "right") for m in scores.metrics()), ("sites", "right"), ("", "left")]
    rows = [
        [
            str(r),
            *("-" if mean is None else f"{mean.value:.6f}" for mean in of.values()),
            str(max((mean.sites for mean in of.values() if mean is not None), default=0)),
            ", ".join(w for w in ("best" if r == found.round else "", "kept here" if r in files else "") if w),
        ]
        for r, of in zip(rounds, means, strict=True)
    ]
    table(columns, rows, f"means over sites; {shown(deciding)} decides")
    if output is not None:
        line(f"round {wanted}: {shown(str(output))}")


def _write(files: dict[int, Path], round_: int, digest: bytes | None, output: Path) -> None:
    """raises  InputError  ``best.gone``: that model is not kept here;  ``best.changed``: its file is another model's"""
    from shoal.model.digest import model_digest
    from shoal.model.model import load

    if round_ not in files:
        kept = ", ".join(map(str, sorted(files))) or "none"
        told = f"the model of round {round_} is not kept here (kept: {kept}); another site may have it"
        raise InputError("best.gone", told)
    with load(files[round_]) as model:
        assert model.file is not None
        if digest is not None and model_digest(model.file, threads=2) != digest:
            raise InputError("best.changed", f"{files[round_]}: is not the model that was certified in round {round_}")
        model.save(output)
