"""`shoal.merge`: models as dicts or lists of arrays, as files or as Model objects; the same form comes back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.errors import ArgumentError, shown
from shoal.merge.engine import Engine
from shoal.merge.moments import MemoryMoments
from shoal.merge.options import Integers, MergeOptions, Nonfinite, Progress, Quantised, plan
from shoal.merge.source import MemorySink, MemorySource
from shoal.merge.tile import Array
from shoal.model.arrays import as_array, as_target, overlapping


def merge(
    models: Sequence[Any],
    *,
    weights: Sequence[float] | None = None,
    method: str = "mean",
    base: Any = None,
    outer: str | None = None,
    outer_state: Any = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    integers: Integers = "require-equal",
    nonfinite: Nonfinite = "refuse",
    quantised: Quantised = "refuse",
    threads: int = 0,
    out: Any = None,
    progress: Progress | None = None,
    **parameters: Any,
) -> Any:
    """Merge models of one architecture into one.

    models     N >= 1 models, all in one form:
                 mappings name -> array          -> a dict of numpy arrays
                 lists (or tuples) of arrays     -> a list of numpy arrays
                 arrays, each a whole model      -> a numpy array
                 paths of ONNX files             -> a Model; it is streamed to out=path, in bounded memory
                 Model objects                   -> a Model
               Arrays are numpy, torch, JAX, or anything with DLPack or the buffer protocol, in memory of the CPU.  They
               are read in place; only those that are not contiguous or not in native byte order are copied.
    weights    one number per model, e.g. its samples: finite, >= 0, positive sum.  A model of weight 0 does not count.
    method     name of a rule: `shoal.rules()` lists them with their parameters, which go into **parameters
    base       the model that all were trained from, in the same form (rules that need one, outer optimisers)
    outer      outer optimiser: sgd, momentum, nesterov, adam, yogi, adagrad; its parameters go into **parameters, too
    outer_state  its memory: a dict that is changed in place (start with {}), or for files a path; a file belongs to the
               base that its last step made, and is refused with another
    include, exclude   globs on tensors' names; what is not selected keeps the first model's value
    integers   whole numbers that differ: "require-equal" (refuse), "first", or "max" of each element
    nonfinite  NaN and Inf: "refuse" or "allow"
    quantised  of files and Model objects, whole numbers that a DequantizeLinear turns into weights: "refuse" those that
               differ, or "merge" the numbers that they stand for
    threads    0: SHOAL_THREADS, or all cores
    out        arrays in the form of a model, written in place and returned (they may be an input's own); for files a
               path.  If the merge is refused half-way, arrays that were given as out hold an unusable mixture.
    progress   called with (bytes read, bytes to read)
    raises     ArgumentError  naming "model 2" and the tensor;  InputError, MachineError for files
    """
    options = MergeOptions(
        weights,
        method,
        outer,
        _globs(include),
        _globs(exclude),
        integers,
        nonfinite,
        threads,
        progress,
        parameters,
        quantised,
    )
    given = _models(models)
    if isinstance(given[0], str | os.PathLike):
        from shoal.merge.files import merge_paths

        return merge_paths(given, options, base, outer_state, out)
    if getattr(given[0], "file", None) is not None and isinstance(given[0], Mapping):
        from shoal.merge.models import merge_models

        result = merge_models(given, options, base, outer_state)
        if out is not None:
            result.save(out)
        return result
    if quantised == "merge":
        raise ArgumentError("merge.option", "quantised=merge needs paths or loaded models: arrays have no graph")
    forms = [_Form.of(model, f"model {i + 1}") for i, model in enumerate(given)]
    ground = None if base is None else _Form.of(base, "base")
    return _merge_forms(forms, ground, options, outer_state, out)


def _models(models: object) -> list[Any]:
    if isinstance(models, str | bytes | Mapping) or not isinstance(models, Iterable):
        raise ArgumentError("merge.models", f"models is a {type(models).__name__}; expected a list of models")
    given = list(models)
    if not given:
        raise ArgumentError("merge.models", "no model given; expected at least one")
    return given


def _globs(globs: Iterable[str]) -> tuple[str, ...]:
    return (globs,) if isinstance(globs, str) else tuple(globs)


@dataclass(frozen=True, slots=True)
class _Form:
    """A model of arrays.

    kind    "dict", "list", "array" or "model" (a Model object made from arrays)
    arrays  key -> array of any shape, contiguous
    given   what the caller handed over
    """

    kind: str
    arrays: dict[str, Array]
    given: Any

    @staticmethod
    def of(model: Any, label: str) -> _Form:
        named, kind = _named(model, label)
        return _Form(kind, {key: as_array(value, label, key) for key, value in named.items()}, model)

    def source(self, label: str) -> MemorySource:
        flat = {key: array.reshape(-1) for key, array in self.arrays.items()}
        return MemorySource(label, flat, {key: array.shape for key, array in self.arrays.items()})


def _named(model: Any, label: str) -> tuple[dict[str, Any], str]:
    """The model's arrays by key, and its form."""
    if isinstance(model, str | bytes | os.PathLike):
        raise ArgumentError("merge.models", f"{label} is a path; expected the same form as model 1")
    if isinstance(model, Mapping):
        for key in model:
            if not isinstance(key, str):
                raise ArgumentError("merge.models", f"{label}: name {shown(repr(key))} is no text")
        return dict(model), "model" if hasattr(model, "from_tensors") else "dict"
    if isinstance(model, list | tuple):
        return {f"{i:09d}": value for i, value in enumerate(model)}, "list"
    return {"": model}, "array"


def _merge_forms(forms: list[_Form], ground: _Form | None, options: MergeOptions, outer_state: Any, out: Any) -> Any:
    checked = plan(options, len(forms), ground is not None)
    for i, form in enumerate(forms[1:]):
        _require_same(forms[0], form, f"model {i + 2}")
    if ground is not None:
        _require_same(forms[0], ground, "base")
    sources = [form.source(f"model {i + 1}") for i, form in enumerate(forms)]
    engine = Engine(checked, sources, None if ground is None else ground.source("base"))
    results = _Results(forms, ground, out)
    state = outer_state
    if state is None:
        state = {}
    elif not isinstance(state, MutableMapping):
        raise ArgumentError(
            "outer.state", f"outer_state is a {type(state).__name__}; expected a dict (arrays in memory)"
        )
    moments = None if checked.outer is None else MemoryMoments(checked.outer, state, engine.floats)
    engine.run(MemorySink(results.flat, sources[0]), moments)
    if moments is not None and checked.outer is not None:
        moments.finish(checked.outer, [(tensor.key, tensor.dims) for tensor in engine.floats])
    return results.finish()


def _require_same(one: _Form, two: _Form, label: str) -> None:
    """raises ArgumentError if the models' forms, names, shapes or dtypes differ."""
    if one.kind != two.kind:
        raise ArgumentError("merge.models", f"{label} is a {two.kind}, model 1 a {one.kind}; expected one form")
    if one.kind == "list" and len(one.arrays) != len(two.arrays):
        raise ArgumentError("merge.differ", f"{label} has {len(two.arrays)} arrays, model 1 has {len(one.arrays)}")
    missing, extra = sorted(one.arrays.keys() - two.arrays.keys()), sorted(two.arrays.keys() - one.arrays.keys())
    if missing or extra:
        what = f"lacks {shown(missing[0])}" if missing else f"has {shown(extra[0])}, which model 1 has not"
        raise ArgumentError(
            "merge.differ", f"{label} {what} ({len(missing) + len(extra)} differences); expected the same tensors"
        )
    for key, array in one.arrays.items():
        other = two.arrays[key]
        if array.shape != other.shape or array.dtype != other.dtype:
            raise ArgumentError(
                "merge.differ",
                f"{label}: tensor {shown(key)} is {other.dtype}{list(other.shape)}; expected "
                f"{array.dtype}{list(array.shape)} as in model 1",
            )


class _Results:
    """Arrays that the result is written to.

    flat   key -> 1-D view
    """

    def __init__(self, forms: list[_Form], ground: _Form | None, out: Any) -> None:
        self._form = forms[0]
        self._out = out
        self._late: dict[str, Array] = {}
        if out is None:
            self._arrays = {key: np.empty(array.shape, array.dtype) for key, array in forms[0].arrays.items()}
        else:
            self._arrays = self._targets(out)
            inputs = ((key, array) for form in forms for key, array in form.arrays.items())
            base = [] if ground is None else list(ground.arrays.values())
            for key in overlapping(self._arrays, inputs, base):
                self._late[key] = np.empty(self._arrays[key].shape, self._arrays[key].dtype)
        self.flat = {key: self._late.get(key, array).reshape(-1) for key, array in self._arrays.items()}

    def _targets(self, out: Any) -> dict[str, Array]:
        named, kind = _named(out, "out")
        if kind not in (self._form.kind, "dict"):
            raise ArgumentError("merge.models", f"out is a {kind}; expected a {self._form.kind} as the models are")
        found = {key: as_target(value, key) for key, value in named.items()}
        _require_same(self._form, _Form(self._form.kind, found, out), "out")
        return found

    def finish(self) -> Any:
        """The result in the caller's form."""
        for key, array in self._late.items():
            self._arrays[key][...] = array
        if self._out is not None:
            return self._out
        match self._form.kind:
            case "list":
                return list(self._arrays.values())
            case "array":
                return self._arrays[""]
            case "model":
                return type(self._form.given).from_tensors(self._arrays)
        return self._arrays
