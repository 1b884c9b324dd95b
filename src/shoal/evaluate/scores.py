"""From what a model's output holds to one probability per class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shoal.errors import InputError
from shoal.evaluate.metrics import Floats, Labels

#: how a model's output is to be read
KINDS = ("auto", "probability", "logit")
#: how far rows of probabilities may be from one: float16 outputs of a thousand classes stay below it
SUM_TOLERANCE = 1e-2


def to_probabilities(output: npt.NDArray[np.generic], kind: str = "auto") -> tuple[Floats, str]:
    """Read a model's output as probabilities.

    output   [n], [n, 1] (score of class 1 of two) or [n, K]
    kind     "probability", "logit" (sigmoid for one column, softmax for more), or "auto": probability if every value is
             in 0..1 and, for K columns, every row sums to one; else logit
    returns  float64[n, K] with K >= 2, and the kind that was used
    raises   InputError("eval.output")  not such a shape, or NaN or Inf in it
    """
    values = np.asarray(output, np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] == 0):
        raise InputError(
            "eval.output", f"the model's output has shape {list(values.shape)}; expected [n], [n, 1] or [n, classes]"
        )
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
        raise InputError("eval.output", f"the model's output for row {row} is NaN or Inf")
    if kind == "auto":
        kind = "probability" if _are_probabilities(values) else "logit"
    if kind == "logit":
        values = _sigmoid(values) if values.ndim == 1 else _softmax(values)
    return (np.stack([1 - values, values], axis=1) if values.ndim == 1 else values), kind


def _are_probabilities(values: Floats) -> bool:
    inside = bool(((values >= 0) & (values <= 1)).all())
    return inside and (values.ndim == 1 or bool((np.abs(values.sum(axis=1) - 1) <= SUM_TOLERANCE).all()))


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -x)), np.float64)


def _softmax(x: Floats) -> Floats:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def to_labels(values: npt.NDArray[np.generic], classes: int) -> Labels:
    """Read labels as class numbers: int64[n].

    values  [n] or [n, 1] of integers, booleans or whole floats in 0..classes-1
    raises  InputError("eval.labels")
    """
    found = np.asarray(values)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or found.dtype.kind not in "biuf":
        raise InputError(
            "eval.labels",
            f"labels have shape {list(found.shape)} and dtype {found.dtype}; expected numbers of shape [n]",
        )
    as_float = found.astype(np.float64)
    wrong = np.flatnonzero(~((as_float >= 0) & (as_float < classes) & (as_float == np.floor(as_float))))
    if wrong.size:
        raise InputError(
            "eval.labels",
            f"label of row {int(wrong[0])} is {as_float[wrong[0]]:g} ({wrong.size} such rows); "
            f"expected a class number from 0 to {classes - 1}",
        )
    return found.astype(np.int64)
