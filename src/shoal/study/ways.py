"""The ways to learn, each one word: what a site begins its next round with is all that differs.

Every way has the same sites, the same starting network and the same number of passes over the patients.  Each site
leaves one ONNX file per round; the merge is the engine's own, from file to file, as `shoal merge` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shoal.study.network import Training, initial, read_onnx, train, write_onnx
from shoal.study.sites import Site


@dataclass(frozen=True)
class Plan:
    """method  rule of the merge, by its name in `shoal rules`"""

    rounds: int
    seed: int
    method: str = "mean"
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Round:
    """One round's files.

    files    one per site, in the order of the sites
    samples  training patients of each site
    begin    what every site began the round with, where all began with the same
    output   where a merged model goes
    """

    files: list[Path]
    samples: list[int]
    begin: Path
    output: Path

    def weights(self, method: str) -> list[float] | None:
        """Weights as the rule takes them: samples, shares of all samples where weights multiply, or none."""
        from shoal.merge.rules import find

        kind = find(method).weights
        if kind == "none":
            return None
        return [n / sum(self.samples) if kind == "as given" else float(n) for n in self.samples]

    def base(self, method: str) -> Path | None:
        from shoal.merge.rules import find

        return self.begin if find(method).needs_base else None

    def command(self, method: str) -> str:
        """The shell line that merges these files as the study did."""
        weights, base = self.weights(method), self.base(method)
        words = ["shoal merge", *map(str, self.files)]
        words += [] if weights is None else [f"--weights {','.join(format(w, '.17g') for w in weights)}"]
        words += [] if base is None else [f"--base {base}"]
        return " ".join([*words, f"--method {method}", "-o merged.onnx"])


#: (round, rule) -> what each site begins the next round with
Meeting = Callable[[Round, str], list[Path]]


def _alone(round_: Round, _: str) -> list[Path]:
    return round_.files


def _merged(round_: Round, method: str) -> list[Path]:
    from shoal.merge.files import merge_files
    from shoal.merge.options import MergeOptions

    options = MergeOptions(weights=round_.weights(method), method=method)
    merge_files(round_.files, round_.output, options, base=round_.base(method))
    return [round_.output] * len(round_.files)


#: way -> how a round ends.  "local": every site goes on alone.  "centralised" is "local" with one site that has all
#: patients.  "federated": one coordinator merges the files, weighted by the number of training patients.  "swarm", and
#: "federated" with nodes that run: as `hospitals.Hospitals.meet` does.
WAYS: dict[str, Meeting] = {"local": _alone, "centralised": _alone, "federated": _merged}


def start_file(sites: list[Site], plan: Plan, folder: Path) -> Path:
    """The network that every site begins with: folder/start.onnx."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = folder / "start.onnx"
    write_onnx(initial(sites[0].train.x.shape[1], plan.training.hidden, plan.seed), begin)
    return begin


def learn(
    way: str, sites: list[Site], plan: Plan, folder: Path, meet: Meeting | None = None
) -> tuple[list[list[Path]], Round]:
    """Train by one of WAYS: for each round, the file that each site ends it with; and the last round.

    folder  is made; holds start.onnx, round-NN/SITE.onnx and, where sites meet, round-NN/merged.onnx
    meet    how a round ends, if not as WAYS says
    """
    begin = start_file(sites, plan, folder)
    now, history = [begin] * len(sites), []
    for number in range(1, plan.rounds + 1):
        place = folder / f"round-{number:02d}"
        place.mkdir(exist_ok=True)
        files = [place / f"{site.name}.onnx" for site in sites]
        for index, (site, start, file) in enumerate(zip(sites, now, files, strict=True)):
            seed = round_seed(plan.seed, number, index)
            write_onnx(train(read_onnx(start), site.train, plan.training, seed), file)
        this = Round(files, [len(site.train) for site in sites], now[0], place / "merged.onnx")
        now = (meet or WAYS[way])(this, plan.method)
        history.append(now)
    return history, this


def round_seed(seed: int, number: int, index: int) -> int:
    """One seed per (study, round, site), so that a site's order of patients does not depend on the way."""
    return (seed * 1_000 + number) * 1_000 + index
