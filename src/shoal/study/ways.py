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


#: (files of one round, one per site; samples per site; file to write) -> what each site begins the next round with
Meeting = Callable[[list[Path], list[int], Path, str], list[Path]]


def _alone(files: list[Path], *_: object) -> list[Path]:
    return files


def _merged(files: list[Path], samples: list[int], output: Path, method: str) -> list[Path]:
    from shoal.merge.files import merge_files
    from shoal.merge.options import MergeOptions

    merge_files(files, output, MergeOptions(weights=samples, method=method))
    return [output] * len(files)


#: way -> how a round ends.  "local": every site goes on alone.  "centralised" is "local" with one site that has all
#: patients.  "federated": the files are merged, weighted by the number of training patients.
WAYS: dict[str, Meeting] = {"local": _alone, "centralised": _alone, "federated": _merged}


def learn(way: str, sites: list[Site], plan: Plan, folder: Path) -> list[list[Path]]:
    """Train by one of WAYS: for each round, the file that each site ends it with.

    folder  is made; holds round-NN/SITE.onnx and, where sites meet, round-NN/merged.onnx
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = sites[0].train.x.shape[1]
    begin = folder / "start.onnx"
    write_onnx(initial(columns, plan.training.hidden, plan.seed), begin)
    now, history = [begin] * len(sites), []
    for number in range(1, plan.rounds + 1):
        place = folder / f"round-{number:02d}"
        place.mkdir(exist_ok=True)
        files = [place / f"{site.name}.onnx" for site in sites]
        for index, (site, start, file) in enumerate(zip(sites, now, files, strict=True)):
            write_onnx(train(read_onnx(start), site.train, plan.training, round_seed(plan.seed, number, index)), file)
        now = WAYS[way](files, [len(site.train) for site in sites], place / "merged.onnx", plan.method)
        history.append(now)
    return history


def round_seed(seed: int, number: int, index: int) -> int:
    """One seed per (study, round, site), so that a site's order of patients does not depend on the way."""
    return (seed * 1_000 + number) * 1_000 + index
