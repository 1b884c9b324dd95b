"""Scores of many models on the same held-out patients, with honest intervals: every model meets the same resamples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shoal.errors import InputError
from shoal.evaluate.metrics import Floats, auc, bootstrap_auc, interval
from shoal.evaluate.session import Session
from shoal.study.sites import Patients

#: resamples behind an interval
DRAWS = 1000


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % bootstrap interval; all None where it is not defined (patients of one outcome only)."""

    value: float | None
    low: float | None
    high: float | None


UNDEFINED = Estimate(None, None, None)


def risks(model: Path, patients: Patients) -> Floats:
    """The model's answer for each patient, run by onnxruntime: float64[n]."""
    return np.asarray(Session(model, threads=1).predict(patients.x)[:, 0], np.float64)


def plain_auc(risk: Floats, patients: Patients) -> float | None:
    try:
        return auc(patients.y, np.stack([1 - risk, risk], axis=1))
    except InputError:
        return None


def estimate(risk: Floats, patients: Patients, seed: int) -> Estimate:
    """AUC with its interval."""
    value = plain_auc(risk, patients)
    if value is None:
        return UNDEFINED
    return Estimate(value, *interval(bootstrap_auc(patients.y, risk, DRAWS, seed)))


def gain(better: Floats, other: Floats, patients: Patients, seed: int) -> Estimate:
    """AUC of the first minus AUC of the second, on the same patients in every resample."""
    first, second = plain_auc(better, patients), plain_auc(other, patients)
    if first is None or second is None:
        return UNDEFINED
    draws = bootstrap_auc(patients.y, better, DRAWS, seed) - bootstrap_auc(patients.y, other, DRAWS, seed)
    return Estimate(first - second, *interval(draws))
