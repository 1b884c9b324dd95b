"""One cohort -> several simulated sites of different size and case mix, each with patients held out.

The sites are simulated: real patients' records, dealt out by a seeded draw in which each site prefers another kind of
patient.  Whoever shows results says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shoal.study.data import Cohort

#: part of every site's patients that no model is trained on
HELD_OUT = 0.3

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Patients:
    """x float32[n, columns], y int64[n] (0 or 1)."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Site:
    """One hospital; the same patients are never in `train` and `test`."""

    name: str
    about: str
    train: Patients
    test: Patients


def deal(cohort: Cohort, seed: int) -> dict[str, Rows]:
    """Which rows go to which site: every row to one.  A site's chance grows with its share and with what it likes."""
    noise = np.random.default_rng([seed, 1]).gumbel(size=(len(cohort.outcome), len(cohort.leans)))
    everybody = np.arange(len(cohort.outcome))
    common = cohort.scaled(everybody, cohort.medians(everybody))
    wish = np.empty_like(noise)
    for i, lean in enumerate(cohort.leans):
        wish[:, i] = np.log(lean.share)
        for feature, strength in lean.likes.items():
            wish[:, i] += strength * common[:, cohort.columns.index(feature)]
    chosen = (wish + noise).argmax(axis=1)
    return {lean.name: np.flatnonzero(chosen == i) for i, lean in enumerate(cohort.leans)}


def hold_out(cohort: Cohort, rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """(train, test): HELD_OUT of each outcome's rows for the test, drawn at random."""
    rng = np.random.default_rng([seed, 2, len(rows)])
    test: list[Rows] = []
    for outcome in (0, 1):
        of_it = rng.permutation(rows[cohort.outcome[rows] == outcome])
        test.append(of_it[: round(HELD_OUT * len(of_it))])
    held = np.sort(np.concatenate(test))
    return np.setdiff1d(rows, held), held


def make_sites(cohort: Cohort, seed: int) -> tuple[list[Site], Site]:
    """The sites, and the study's one more: all their patients in one place ("pooled").

    A site fills its missing values with the median of its own training patients, the pooled one with that of all
    training patients.  Every patient held out is held out everywhere.
    """
    dealt = deal(cohort, seed)
    parts = [hold_out(cohort, dealt[lean.name], seed) for lean in cohort.leans]
    sites = [_site(cohort, lean.name, lean.about, *part) for lean, part in zip(cohort.leans, parts, strict=True)]
    train = np.concatenate([t for t, _ in parts])
    test = np.concatenate([t for _, t in parts])
    return sites, _site(cohort, "pooled", "all patients in one place", train, test)


def _site(cohort: Cohort, name: str, about: str, train: Rows, test: Rows) -> Site:
    fill = cohort.medians(train)
    return Site(
        name,
        about,
        Patients(cohort.scaled(train, fill), cohort.outcome[train]),
        Patients(cohort.scaled(test, fill), cohort.outcome[test]),
    )
