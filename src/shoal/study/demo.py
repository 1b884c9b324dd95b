"""The main job on real patients: four simulated hospitals, alone, federated, as a swarm, and all data in one place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from shoal.evaluate.metrics import Floats
from shoal.study.data import Cohort
from shoal.study.network import Training
from shoal.study.score import Estimate, estimate, gain, plain_auc, risks
from shoal.study.sites import Patients, Site, make_sites
from shoal.study.ways import Plan, Round, learn, start_file

#: models that learned from all patients
WHOLE = ("federated", "swarm", "pooled")
#: said wherever these results are shown
SIMULATED = "simulated hospitals, real patients' data"


@dataclass(frozen=True)
class Row:
    """One model.

    model     "A", "B" ...: that hospital alone; "federated"; "swarm"; "pooled"
    trained   patients it learned from
    everyone  AUC on all held-out patients
    gain      AUC of the merged model (`Result.merged`) minus this one's, on all held-out patients; None for itself
    """

    model: str
    about: str
    trained: int
    everyone: Estimate
    gain: Estimate | None


@dataclass(frozen=True)
class Home:
    """One hospital's own held-out patients: AUC of its own model, the merged and the pooled one.

    gain  merged minus own
    """

    site: str
    about: str
    train: int
    test: int
    events: float
    own: float | None
    merged: float | None
    pooled: float | None
    gain: Estimate


@dataclass(frozen=True)
class Swarm:
    """What is to be said of the swarm's run.

    secure   whether sums were under masks
    killed   the hospital that was killed and came back, and in which round; "" and 0 if none was
    rounds, entries   certified rounds and entries of the ledger, as `shoal ledger verify` found them
    ledger, genesis   exported ledger, and the digest that it is verified by
    """

    secure: bool
    killed: str
    killed_in: int
    rounds: int
    entries: int
    ledger: str
    genesis: str


@dataclass(frozen=True)
class Result:
    """merged  which row is "the merged model": the swarm's, or the federated one's where no swarm was run
    curves  name -> AUC on all held-out patients after each round
    events   share of outcome 1 among all patients
    command  the shell line that merges the last round's files by the same rule
    """

    cohort: str
    question: str
    source: str
    patients: int
    events: float
    held_out: int
    rounds: int
    seed: int
    method: str
    rows: list[Row]
    homes: list[Home]
    curves: dict[str, list[float | None]]
    merged: str
    merged_file: str
    command: str
    swarm: Swarm | None

    def as_json(self) -> dict[str, Any]:
        return {"simulated": SIMULATED, **asdict(self), "conclusion": conclusion(self)}


def run_demo(cohort: Cohort, plan: Plan, out: Path, tell: Callable[[str], None], swarm: bool = True) -> Result:
    """Run the whole study below `out` (made; an earlier run's files in it are replaced).

    tell   is called with one line before each long step
    swarm  also as a swarm: a node process for each hospital, one of which is killed half-way and comes back; the
           federation then has the same nodes, with one hospital as coordinator, instead of files in one process
    """
    sites, pooled = make_sites(cohort, plan.seed)
    everyone = Patients(
        np.concatenate([s.test.x for s in sites]),
        np.concatenate([s.test.y for s in sites]),
    )
    models: dict[str, list[list[Path]]] = {}
    last_round: dict[str, Round] = {}
    facts = None
    for way, members in (("local", sites), ("federated", sites), ("centralised", [pooled]), ("swarm", sites)):
        nodes = swarm and way in ("federated", "swarm")
        if way == "swarm" and not nodes:
            continue
        what = "node" if nodes else "site"
        tell(f"{way}: {len(members)} {what}{'s' if len(members) > 1 else ''}, {plan.rounds} rounds")
        folder = out / way
        if folder.exists():
            shutil.rmtree(folder)
        if nodes:
            models[way], last_round[way], facts = run_nodes(way, sites, plan, folder, tell)
        else:
            models[way], last_round[way] = learn(way, members, plan, folder)
    tell("onnxruntime: every model of every round on the held-out patients")
    history = {site.name: [files[i] for files in models["local"]] for i, site in enumerate(sites)}
    for way in ("federated", "swarm") if swarm else ("federated",):
        history[way] = [files[0] for files in models[way]]
    merged = "swarm" if swarm else "federated"
    history["pooled"] = [files[0] for files in models["centralised"]]
    # The pooled study fills missing values with its own median, so its patients' columns differ a little.
    shown_to = {name: pooled.test if name == "pooled" else everyone for name in history}
    curves = {name: [plain_auc(risks(f, shown_to[name]), everyone) for f in files] for name, files in history.items()}
    last = {name: risks(files[-1], shown_to[name]) for name, files in history.items()}
    return Result(
        cohort=cohort.name,
        question=cohort.question,
        source=cohort.source,
        patients=len(cohort.outcome),
        events=float(cohort.outcome.mean()),
        held_out=len(everyone),
        rounds=plan.rounds,
        seed=plan.seed,
        method=plan.method,
        rows=_rows(sites, pooled, last, everyone, plan.seed, merged),
        homes=_homes(sites, last, plan.seed, merged),
        curves=curves,
        merged=merged,
        merged_file=str(history[merged][-1]),
        command=last_round["federated"].command(plan.method),
        swarm=facts,
    )


def run_nodes(
    way: str, sites: list[Site], plan: Plan, folder: Path, tell: Callable[[str], None]
) -> tuple[list[list[Path]], Round, Swarm]:
    """The same study by nodes that run, as "swarm" or "federated".

    In a swarm the mean is of masked sums, and a hospital is killed; a coordinator sees every model, as all do where
    another rule is used.
    """
    import json

    from shoal.study.hospitals import Hospitals, shoal

    swarm = way == "swarm"
    secure = swarm and plan.method == "mean"
    victim, when = (len(sites) - 1, plan.rounds // 2) if swarm and plan.rounds >= 4 else (0, 0)
    begin = start_file(sites, plan, folder)
    hospitals = Hospitals(folder / "hospitals", [site.name for site in sites], begin, plan.method, tell, way)
    with hospitals:
        numbers = count(1)

        def meet(round_: Round, method: str) -> list[Path]:
            number = next(numbers)
            if number == when:
                hospitals.kill(victim)
            elif when and number == when + 1:
                hospitals.start(victim)
                hospitals.caught_up(victim, when)
                tell(f"hospital {sites[victim].name} is back, with the model of round {when}")
            return hospitals.meet(round_, method)

        files, last = learn(way, sites, plan, folder, meet)
    ledger = hospitals.export(folder / f"{way}.shoal-ledger")
    found = json.loads(shoal("ledger", "verify", str(ledger), "--genesis", hospitals.genesis, "--format", "json"))
    killed = sites[victim].name if when else ""
    return (
        files,
        last,
        Swarm(
            secure,
            killed,
            when,
            found["certified"],
            found["accepted"],
            str(ledger),
            hospitals.genesis,
        ),
    )


def _rows(
    sites: list[Site], pooled: Site, last: dict[str, Floats], everyone: Patients, seed: int, merged: str
) -> list[Row]:
    trained = {s.name: len(s.train) for s in sites} | dict.fromkeys(WHOLE, len(pooled.train))
    about = {s.name: s.about for s in sites} | {
        "federated": "no record left its hospital; one coordinator saw every model",
        "swarm": "no record left its hospital; nobody saw another's model",
        "pooled": pooled.about,
    }
    return [
        Row(
            name,
            about[name],
            trained[name],
            estimate(risk, everyone, seed),
            None if name == merged else gain(last[merged], risk, everyone, seed),
        )
        for name, risk in last.items()
    ]


def _homes(sites: list[Site], last: dict[str, Floats], seed: int, name: str) -> list[Home]:
    homes, start = [], 0
    for site in sites:
        part = slice(start, start + len(site.test))
        start = part.stop
        own, merged, pooled = (last[which][part] for which in (site.name, name, "pooled"))
        homes.append(
            Home(
                site.name,
                site.about,
                len(site.train),
                len(site.test),
                float(site.test.y.mean()),
                plain_auc(own, site.test),
                plain_auc(merged, site.test),
                plain_auc(pooled, site.test),
                gain(merged, own, site.test, seed),
            )
        )
    return homes


def conclusion(result: Result) -> str:
    """What these numbers say, worked out from them: a run in which merging does not help says so."""
    alone = [row for row in result.rows if row.gain is not None and row.model not in WHOLE]
    gains = {row.model: row.gain for row in alone if row.gain is not None and row.gain.value is not None}
    better = [m for m, g in gains.items() if g.value is not None and g.value > 0]
    clear = [m for m, g in gains.items() if g.low is not None and g.low > 0]
    worse = [m for m, g in gains.items() if g.high is not None and g.high < 0]
    lines = [
        f"On all {result.held_out} held-out patients the merged model ({result.merged}) has a higher AUC "
        f"than {len(better)} of {len(alone)} hospitals alone; for {len(clear)} ({', '.join(clear) or 'none'}) the 95 % "
        "interval of the gain lies above zero."
    ]
    if worse:
        lines.append(f"It is clearly worse than {', '.join(worse)} alone.")
    if not better:
        lines.append("In this run merging did not help.")
    home = [h for h in result.homes if h.gain.value is not None]
    at_home = [h.site for h in home if h.gain.value is not None and h.gain.value > 0]
    clear_home = [h.site for h in home if h.gain.low is not None and h.gain.low > 0]
    lines.append(
        f"On its own patients it is better for {len(at_home)} of {len(home)} hospitals "
        f"({', '.join(at_home) or 'none'}), beyond chance for {', '.join(clear_home) or 'none of them'}."
    )
    pooled = next(row.gain for row in result.rows if row.model == "pooled")
    if pooled is not None and pooled.value is not None and pooled.low is not None and pooled.high is not None:
        within = "zero lies inside" if pooled.low <= 0 <= pooled.high else "zero lies outside"
        lines.append(
            f"Merged minus pooled: {pooled.value:+.3f} "
            f"(95 % interval {pooled.low:+.3f} to {pooled.high:+.3f}: {within})."
        )
    return " ".join(lines)


def plan_for(cohort: Cohort, rounds: int, seed: int, method: str = "mean") -> Plan:
    """The plan of a demo: small cohorts need more passes per round."""
    small = len(cohort.outcome) < 1000
    return Plan(rounds, seed, method, Training(epochs=4 if small else 2))
