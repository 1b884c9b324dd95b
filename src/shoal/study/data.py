"""Cohorts of real patients that other packages ship: features, outcomes, and constants to put features on one scale.

The constants are written down here, before anybody sees a patient: a swarm has no place where all records lie, so a
mean over all of them must not be needed.  They come from published reference ranges or a data set's own description.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, MachineError, shown

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """One measurement: used as (g(x) - center) / width, g being the natural logarithm where `log` is set.

    may_miss  a missing value is replaced by a site's own median, and a further 0/1 column says so
    """

    name: str
    center: float
    width: float
    log: bool = False
    may_miss: bool = False


@dataclass(frozen=True)
class Lean:
    """What kind of patients a simulated site draws: features (on the common scale), and how much it prefers them high.

    share  relative size before the preferences act
    """

    name: str
    about: str
    share: float
    likes: dict[str, float]


@dataclass(frozen=True)
class Cohort:
    """values    float64[n, features], as recorded; NaN where missing
    outcome   int64[n], 0 or 1
    question  what outcome 1 means, for tables and plots
    source    where the records come from, one line
    leans     the simulated sites that this cohort is split into
    """

    name: str
    question: str
    source: str
    features: tuple[Feature, ...]
    values: Floats
    outcome: npt.NDArray[np.int64]
    leans: tuple[Lean, ...]

    @property
    def columns(self) -> list[str]:
        """Names of the columns that `scaled` gives."""
        return [f.name for f in self.features] + [f"{f.name} missing" for f in self.features if f.may_miss]

    def medians(self, rows: npt.NDArray[np.int64]) -> Floats:
        """Per feature, the median of these rows' recorded values: float64[features]."""
        return np.asarray(np.nanmedian(self.values[rows], axis=0), np.float64)

    def scaled(self, rows: npt.NDArray[np.int64], fill: Floats) -> npt.NDArray[np.float32]:
        """These rows as a network sees them: float32[len(rows), len(columns)].

        fill  float64[features]  what stands in for a missing value (a site's own training median)
        """
        raw = self.values[rows]
        missing = np.isnan(raw)
        whole = np.where(missing, fill, raw)
        out = [
            ((np.log(whole[:, i]) if f.log else whole[:, i]) - f.center) / f.width for i, f in enumerate(self.features)
        ]
        out += [missing[:, i].astype(np.float64) for i, f in enumerate(self.features) if f.may_miss]
        return np.stack(out, axis=1).astype(np.float32)


#: days of ten years
TEN_YEARS: Final = 3652.5

# Serum free light chains in mg/dL: reference ranges 0.33-1.94 (kappa) and 0.57-2.63 (lambda), Katzmann et al., Clinical
# Chemistry 48 (2002); creatinine in mg/dL: 0.6-1.2, as laboratories print it.  Center: the geometric middle.
_FLCHAIN_FEATURES: Final = (
    Feature("age", 65, 10),
    Feature("male", 0.5, 0.5),
    Feature("kappa", float(np.log(0.80)), 0.5, log=True),
    Feature("lambda", float(np.log(1.22)), 0.5, log=True),
    Feature("creatinine", float(np.log(0.85)), 0.25, log=True, may_miss=True),
    Feature("mgus", 0, 1),
    Feature("flc.grp", 5.5, 3),
)
_FLCHAIN_LEANS: Final = (
    Lean("A", "large, all kinds of patients", 0.50, {}),
    Lean("B", "older patients", 0.16, {"age": 1.2}),
    Lean("C", "younger patients", 0.13, {"age": -1.2}),
    Lean("D", "small, kidney clinic", 0.012, {"creatinine": 1.2}),
)


def load_flchain() -> Cohort:
    """FLChain: residents of Olmsted County, Minnesota, aged 50 or more, 1995-2003; dead within ten years of the blood
    sample?  People who left the study alive before ten years have no answer and are left out.

    The column `chapter` (cause of death) is dropped: only the dead have one.
    raises  MachineError("data.missing")  scikit-survival, which ships the records, is not installed
    source  Dispenzieri et al., Mayo Clinic Proceedings 87 (2012), 517-523
    """
    try:
        from sksurv.datasets import load_flchain as load
    except ImportError as error:
        raise MachineError(
            "data.missing",
            "the FLChain records come with scikit-survival: pip install 'shoal[demo]', or use --data wdbc",
        ) from error
    table, end = load()
    dead = end["death"] & (end["futime"] <= TEN_YEARS)
    known = dead | (end["futime"] >= TEN_YEARS)

    def column(name: str) -> Floats:
        values: Any = table[name]
        if name in ("sex", "mgus"):
            return np.asarray(values == {"sex": "M", "mgus": "yes"}[name], np.float64)
        return np.asarray(values.astype(np.float64), np.float64)

    names = ("age", "sex", "kappa", "lambda", "creatinine", "mgus", "flc.grp")
    values = np.stack([column(n) for n in names], axis=1)
    return Cohort(
        name="FLChain",
        question="death within ten years",
        source="FLChain: Mayo Clinic study of serum free light chains, Olmsted County (Dispenzieri et al. 2012)",
        features=_FLCHAIN_FEATURES,
        values=values[known],
        outcome=dead[known].astype(np.int64),
        leans=_FLCHAIN_LEANS,
    )


# Typical size and spread of the ten measurements of cell nuclei (mean, standard error, worst), rounded from the ranges
# that the data set's own description prints.
_WDBC: Final = {
    "radius": ((14, 4), (0.4, 0.3), (16, 5)),
    "texture": ((19, 4), (1.2, 0.5), (26, 6)),
    "perimeter": ((92, 24), (2.9, 2.0), (107, 34)),
    "area": ((650, 350), (40, 45), (880, 570)),
    "smoothness": ((0.1, 0.014), (0.007, 0.003), (0.13, 0.023)),
    "compactness": ((0.1, 0.05), (0.025, 0.018), (0.25, 0.16)),
    "concavity": ((0.09, 0.08), (0.03, 0.03), (0.27, 0.2)),
    "concave points": ((0.05, 0.04), (0.012, 0.006), (0.11, 0.065)),
    "symmetry": ((0.18, 0.027), (0.02, 0.008), (0.29, 0.06)),
    "fractal dimension": ((0.063, 0.007), (0.0038, 0.0026), (0.084, 0.018)),
}
_WDBC_LEANS: Final = (
    Lean("A", "large, all kinds of patients", 0.50, {}),
    Lean("B", "larger tumours", 0.20, {"mean radius": 0.8}),
    Lean("C", "smaller tumours", 0.20, {"mean radius": -0.8}),
    Lean("D", "small, irregular cells", 0.08, {"mean concavity": 0.6}),
)


def load_wdbc() -> Cohort:
    """Wisconsin diagnostic breast cancer: 569 tumours, 30 measurements of cell nuclei in a needle sample; malignant?

    raises  MachineError("data.missing")  scikit-learn, which ships the records, is not installed
    source  Street, Wolberg and Mangasarian, SPIE 1905 (1993)
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise MachineError(
            "data.missing", "the breast cancer records come with scikit-learn: pip install 'shoal[demo]'"
        ) from error
    found = load_breast_cancer()
    features = tuple(
        Feature(name, *_WDBC[base][kind])
        for kind, pattern in enumerate(("mean {}", "{} error", "worst {}"))
        for base in _WDBC
        for name in [pattern.format(base)]
    )
    places = [list(found.feature_names).index(f.name) for f in features]
    return Cohort(
        name="WDBC",
        question="malignant tumour",
        source="Wisconsin diagnostic breast cancer (Street, Wolberg and Mangasarian 1993)",
        features=features,
        values=np.asarray(found.data, np.float64)[:, places],
        outcome=(found.target == 0).astype(np.int64),
        leans=_WDBC_LEANS,
    )


COHORTS: Final[dict[str, Callable[[], Cohort]]] = {"flchain": load_flchain, "wdbc": load_wdbc}


def load_cohort(name: str) -> Cohort:
    """A cohort by its short name (COHORTS).

    raises  ArgumentError("data.unknown"), MachineError("data.missing")
    """
    if name not in COHORTS:
        raise ArgumentError("data.unknown", f"no data set {shown(name)}; there are {', '.join(COHORTS)}")
    return COHORTS[name]()
