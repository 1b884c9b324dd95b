"""Outer optimisers: the merged model is not taken as it is, but as a direction in which the base model moves.

delta = merged - base is the negative pseudo-gradient.  All arithmetic is float64, element by element, in the order
written here; the moments are kept as float32 (float64 for float64 tensors) and the result is rounded once.  Running
means and variances are merged without a step (`running`).

source  Reddi et al., ICLR 2021 (Adaptive Federated Optimization), algorithm 2, without bias correction and with
        v = tau**2 at the start; Hsu et al. 2019 (momentum); Nesterov as in Douillard et al. 2023 (DiLoCo)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from shoal.errors import ArgumentError
from shoal.kernels import dispatch
from shoal.merge.rules import Parameter, canonical, checked, shown
from shoal.merge.tile import Array, Float64s

#: elements that are worked on at a time, so that float64 temporaries stay in the cache.
PIECE: Final = 32_768

#: (delta, moments, settings) -> (what is added to the base, new moments); all float64
Step = Callable[[Float64s, tuple[Float64s, ...], Mapping[str, Any]], tuple[Float64s, tuple[Float64s, ...]]]


@dataclass(frozen=True, slots=True)
class OuterKind:
    """A row of the table of optimisers.

    moments  names of the tensors it keeps for each tensor of the model; "v" starts at tau**2, others at 0
    """

    name: str
    step: Step
    summary: str
    moments: tuple[str, ...]
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Outer:
    """An optimiser with its complete parameters."""

    kind: OuterKind
    settings: Mapping[str, Any]

    @property
    def identity(self) -> bool:
        """True if the result is the merged model, bit for bit: sgd with eta = 1."""
        return self.kind.name == "sgd" and self.settings["eta"] == 1.0

    def start(self, moment: str, like: Array) -> Array:
        """The moment before the first step, for a tensor stretch ``like``."""
        value = self.settings["tau"] ** 2 if moment == "v" else 0.0
        return np.full(len(like), value, moment_dtype(like.dtype))

    def apply(self, base: Array, out: Array, old: tuple[Array, ...], new: tuple[Array, ...]) -> None:
        """One step on one stretch of one tensor.

        base      the base model
        out       the merged model; replaced by the result
        old, new  the moments, read and written; of `moment_dtype`
        """
        if self.identity:
            return
        with np.errstate(all="ignore"):
            for start in range(0, len(out), PIECE):
                piece = slice(start, min(start + PIECE, len(out)))
                ground = base[piece].astype(np.float64)
                moments = tuple(m[piece].astype(np.float64) for m in old)
                moved, after = self.kind.step(out[piece].astype(np.float64) - ground, moments, self.settings)
                # Not ground + 0, which would turn -0 into +0.
                dispatch.convert(np.where(moved == 0.0, ground, ground + moved), out[piece], threads=1)
                for target, value in zip(new, after, strict=True):
                    target[piece] = value


def moment_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float64 for float64 tensors, float32 for all others."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _sgd(
    delta: Float64s, _moments: tuple[Float64s, ...], p: Mapping[str, Any]
) -> tuple[Float64s, tuple[Float64s, ...]]:
    return p["eta"] * delta, ()


def _momentum(
    delta: Float64s, moments: tuple[Float64s, ...], p: Mapping[str, Any]
) -> tuple[Float64s, tuple[Float64s, ...]]:
    m = p["momentum"] * moments[0] + delta
    return p["eta"] * m, (m,)


def _nesterov(
    delta: Float64s, moments: tuple[Float64s, ...], p: Mapping[str, Any]
) -> tuple[Float64s, tuple[Float64s, ...]]:
    m = p["momentum"] * moments[0] + delta
    return p["eta"] * (delta + p["momentum"] * m), (m,)


def _adaptive(second: Callable[[Float64s, Float64s, Mapping[str, Any]], Float64s]) -> Step:
    def step(
        delta: Float64s, moments: tuple[Float64s, ...], p: Mapping[str, Any]
    ) -> tuple[Float64s, tuple[Float64s, ...]]:
        m = p["beta_1"] * moments[0] + (1.0 - p["beta_1"]) * delta
        v = second(moments[1], delta * delta, p)
        return p["eta"] * m / (np.sqrt(v) + p["tau"]), (m, v)

    return step


def _adam(v: Float64s, square: Float64s, p: Mapping[str, Any]) -> Float64s:
    return np.asarray(p["beta_2"] * v + (1.0 - p["beta_2"]) * square)


def _yogi(v: Float64s, square: Float64s, p: Mapping[str, Any]) -> Float64s:
    return np.asarray(v - (1.0 - p["beta_2"]) * square * np.sign(v - square))


def _adagrad(v: Float64s, square: Float64s, _p: Mapping[str, Any]) -> Float64s:
    return v + square


def _eta(default: float) -> Parameter:
    return Parameter("eta", float, default, 0.0, np.inf, "learning rate of the outer step", above=True)


def _share(name: str, default: float, doc: str) -> Parameter:
    return Parameter(name, float, default, 0.0, 1.0, doc)


_MOMENTUM: Final = _share("momentum", 0.9, "share of the last direction that is kept")
_BETA_2: Final = _share("beta_2", 0.99, "decay of the second moment")
_TAU: Final = Parameter("tau", float, 1e-3, 0.0, np.inf, "degree of adaptivity: added to the root of v", above=True)

OUTERS: Final[tuple[OuterKind, ...]] = (
    OuterKind("sgd", _sgd, "base + eta * (merged - base)", (), (_eta(1.0),)),
    OuterKind("momentum", _momentum, "FedAvgM: directions add up", ("m",), (_eta(1.0), _MOMENTUM)),
    OuterKind("nesterov", _nesterov, "momentum that looks ahead", ("m",), (_eta(0.7), _MOMENTUM)),
    OuterKind(
        "adam", _adaptive(_adam), "FedAdam", ("m", "v"),
        (_eta(0.1), _share("beta_1", 0.9, "decay of the first moment"), _BETA_2, _TAU),
    ),
    OuterKind(
        "yogi", _adaptive(_yogi), "FedYogi", ("m", "v"),
        (_eta(0.01), _share("beta_1", 0.9, "decay of the first moment"), _BETA_2, _TAU),
    ),
    OuterKind(
        "adagrad", _adaptive(_adagrad), "FedAdagrad", ("m", "v"),
        (_eta(0.1), _share("beta_1", 0.0, "decay of the first moment"), _TAU),
    ),
)  # fmt: skip


def find_outer(name: str, given: Mapping[str, object]) -> Outer:
    """The optimiser of that name with its parameters out of ``given``.

    raises  ArgumentError  if there is none, or a parameter is out of range
    """
    for kind in OUTERS:
        if isinstance(name, str) and canonical(name).removeprefix("fed") == kind.name:
            return Outer(kind, checked(kind.name, kind.parameters, given))
    known = ", ".join(kind.name for kind in OUTERS)
    raise ArgumentError("outer.unknown", f"no outer optimiser is called {shown(name)}; expected one of {known}")
