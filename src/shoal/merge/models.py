"""Merging of Model objects: loaded files, with values that the caller may have assigned since, or named arrays."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np

from shoal.errors import ArgumentError
from shoal.merge.as_numbers import AsNumbers
from shoal.merge.engine import Engine
from shoal.merge.files import FileSource
from shoal.merge.moments import MemoryMoments
from shoal.merge.options import MergeOptions, plan
from shoal.merge.running import Running
from shoal.merge.source import Item, Stretch, Tensor
from shoal.merge.tile import Array
from shoal.model.agree import require_agreement
from shoal.model.file import ModelFile
from shoal.model.model import Model


class ModelSource(FileSource):
    """A loaded model: its file, but for the values that were assigned."""

    def __init__(self, model: Model, file: ModelFile, label: str) -> None:
        super().__init__(file)
        self.label = f"{label} ({self.label})"
        self._assigned = {key: np.ascontiguousarray(model[key]).reshape(-1) for key in model.changed}

    def place(self, stretch: Stretch, /) -> tuple[int, int] | None:
        return None if stretch.tensor.key in self._assigned else super().place(stretch)

    def read(self, item: Item, out: Array | None, /) -> Array:
        found = super().read(item, out)
        offset = 0
        for stretch in item:
            assigned = self._assigned.get(stretch.tensor.key)
            if assigned is not None:
                found[offset : offset + stretch.count] = assigned[stretch.first : stretch.first + stretch.count]
            offset += stretch.count
        return found


class _Arrays:
    """Results in arrays that become the values of a new Model."""

    def __init__(self, keys: set[str], tensors: Any) -> None:
        self.arrays = {key: np.empty(tensors[key].elements, tensors[key].dtype) for key in keys}

    def place(self, tensor: Tensor, first: int, count: int, /) -> Array | None:
        return self.arrays[tensor.key][first : first + count]

    def put(self, tensor: Tensor, first: int, values: Array) -> None:
        target = self.arrays[tensor.key][first : first + len(values)]
        if target.ctypes.data != values.ctypes.data:
            target[...] = values

    def keep(self, tensor: Tensor) -> None:
        """The first model's file has it; what was assigned to it is carried over by `merge_models`."""


def merge_models(models: Sequence[Any], options: MergeOptions, base: Any, outer_state: Any) -> Model:
    """Merge loaded models.

    returns  a Model of the first one's file with the merged values assigned
    raises   ArgumentError, InputError  as `merge_files`
    """
    named = [(f"model {i + 1}", model) for i, model in enumerate(models)] + ([] if base is None else [("base", base)])
    files = [_file(model, label) for label, model in named]
    checked = plan(options, len(models), base is not None)
    require_agreement(files)
    sources = [ModelSource(m, file, label) for (label, m), file in zip(named, files, strict=True)]
    ground = None if base is None else sources.pop()
    numbers = AsNumbers(checked, files[0], sources, ground)
    engine = Engine(
        checked,
        [numbers.source(source) for source in sources],
        None if ground is None else numbers.source(ground),
        files[0].structure.scales,
        Running.among(files[0].tensors, files[0].structure),
    )
    sink = _Arrays(engine.rewritten() | numbers.beside(), sources[0].tensors)
    if outer_state is not None and not isinstance(outer_state, MutableMapping):
        raise ArgumentError("outer.state", "outer_state of Model objects must be a dict")
    state = {} if outer_state is None else outer_state
    moments = None if checked.outer is None else MemoryMoments(checked.outer, state, engine.floats)
    target = numbers.sink(sink)
    engine.run(target, moments)
    target.finish()
    for file in files:
        file.check_unchanged()
    if moments is not None and checked.outer is not None:
        moments.finish(checked.outer, [(tensor.key, tensor.dims) for tensor in engine.floats])
    result = Model(ModelFile.open(files[0].path), {key: models[0][key] for key in models[0].changed})
    for key, array in sink.arrays.items():
        result[key] = array.reshape(sources[0].tensors[key].dims)
    return result


def _file(model: Any, label: str) -> ModelFile:
    if not isinstance(model, Model) or model.file is None:
        found = "a Model made from arrays" if isinstance(model, Model) else f"a {type(model).__name__}"
        raise ArgumentError("merge.models", f"{label} is {found}; expected a Model loaded from a file, as model 1 is")
    return model.file
