"""A merge written down in mergekit's words, as YAML: what is in the file, checked key by key.

    merge_method: ties
    base_model: base.onnx
    models:
      - model: site-a.onnx
        parameters: {weight: 812}
      - model: site-b.onnx
        parameters: {weight: 240}
      - model: site-c.onnx
        parameters:
          weight:
            - {filter: decoder, value: 0}
            - {value: 1504}
    parameters: {density: 0.6, lambda: 1.0}
    include: ["encoder.*"]
    exclude: ["*.running_*"]

A number may depend on the tensor's name: the first case whose filter occurs in the name holds.  weight and density
stand with each model or, for all, under parameters; dtype must be the models' own, as tensors keep theirs.  Paths are
relative to the recipe's own folder.  What is not understood is refused, so that no wish is dropped in silence.
source  mergekit's configuration format (github.com/arcee-ai/mergekit, docs/merge_methods.md)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.errors import InputError, MachineError, shown
from shoal.limits import MODELS_MAX
from shoal.merge.by_name import ByName, Cases

#: bytes of a recipe: 1024 models with long paths fit many times
RECIPE_BYTES_MAX = 2**20
#: lists and maps inside each other: a recipe needs 4, and yaml's time grows with the square of it
DEPTH_MAX = 16

TOP = ("merge_method", "models", "base_model", "parameters", "include", "exclude", "integers", "outer", "dtype")
MODEL = ("model", "parameters")
#: mergekit's names of parameters -> ours, where they differ
RENAMED = {"lambda": "scaling"}
#: mergekit's names of methods -> ours, where they differ in more than "_"
METHODS = {"linear": "mean", "dare_linear": "dare"}
#: methods whose weights mergekit divides by their sum unless told not to, as ours do
NORMALISED = ("mean", "ties", "dare-ties")
#: methods for which a base_model is one of the models like any other
NO_BASE = ("mean", "median", "trimmed-mean", "geometric-median", "krum", "multi-krum", "bulyan")

#: a setting: one number, or numbers by the tensor's name
Value = float | Cases


@dataclass(frozen=True)
class Recipe:
    """weights  one per model, or None if no model names one, or they depend on tensors' names
    by_name  what depends on tensors' names, or None
    dtype    that all merged tensors must have, as mergekit says it ("float32"), or None
    """

    method: str
    models: tuple[Path, ...]
    weights: tuple[float, ...] | None
    base: Path | None
    parameters: dict[str, object]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    integers: str | None
    outer: str | None
    by_name: ByName | None = None
    dtype: str | None = None


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    raises  InputError("recipe.*")  naming the file, the key, what was found and what was expected
            MachineError("file.unreadable")
    """
    where = shown(str(path))
    return _recipe(_load(path, where), path.parent, where)


def _load(path: Path, where: str) -> object:
    """The YAML document, with nothing in it that is not text, numbers, lists and maps, and no aliases.

    Aliases (`*name`) are what a small file grows into gigabytes with; no recipe needs them.
    """
    import yaml

    if not path.is_file():
        raise InputError("file.missing", f"{where}: no such file")
    try:
        with path.open("rb") as stream:
            data = stream.read(RECIPE_BYTES_MAX + 1)
    except OSError as error:
        raise MachineError("file.unreadable", f"{where}: {error.strerror}") from error
    if len(data) > RECIPE_BYTES_MAX:
        raise InputError("recipe.size", f"{where}: more than {RECIPE_BYTES_MAX} bytes; expected a recipe")
    try:
        depth = 0
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_MAX:
                raise InputError("recipe.depth", f"{where}: lists and maps deeper than {DEPTH_MAX}; expected a recipe")
            if isinstance(event, yaml.AliasEvent):
                raise InputError("recipe.alias", f"{where}: aliases (*{shown(str(event.anchor))}) are not allowed")
        return _loader(data).get_single_data()
    except yaml.YAMLError as error:
        raise InputError("recipe.yaml", f"{where}: not YAML: {shown(' '.join(str(error).split()), 300)}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError("recipe.yaml", f"{where}: not YAML: {shown(str(error), 300)}") from error


def _loader(data: bytes) -> Any:
    """yaml's SafeLoader, but a key that is written twice is refused (the plain one takes the last in silence)."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, "a key is written twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Loader(data)


def _recipe(document: object, folder: Path, where: str) -> Recipe:
    top = _map(document, "the recipe", where)
    _known(top, TOP, "the recipe", where)
    method = _method(top, where)
    base = folder / _text(top["base_model"], "base_model", where) if top.get("base_model") is not None else None
    given = dict(_map(top.get("parameters") or {}, "parameters", where))
    entries = _entries(top, folder, where)
    if base is not None and method not in ("slerp", *NO_BASE):
        # mergekit lists the base among the models, too: its difference from itself is nothing.
        entries = [entry for entry in entries if entry[0] != base]
    paths = [path for path, _ in entries]
    weights = _each("weight", entries, given.pop("weight", None), where)
    densities = _each("density", entries, given.pop("density", None), where)
    parameters = _parameters(given, method, where)
    if densities is not None:
        parameters["density"] = _plain(densities)
    if method == "slerp" and base is not None:
        paths, base = _slerp(paths, base, where), None
    by_name = ByName(
        _cases(weights) if _named(weights) else None,
        {name: _cases(value) for name, value in parameters.items() if _named(value)},
    )
    integers, outer = top.get("integers"), top.get("outer")
    return Recipe(
        method,
        tuple(paths),
        None if weights is None or by_name.weights else tuple(w for w in weights if not isinstance(w, Cases)),
        base,
        {name: value for name, value in parameters.items() if name not in by_name.parameters},
        _globs(top, "include", where),
        _globs(top, "exclude", where),
        None if integers is None else _text(integers, "integers", where),
        None if outer is None else _text(outer, "outer", where),
        by_name if by_name.weights or by_name.parameters else None,
        None if top.get("dtype") is None else _text(top["dtype"], "dtype", where),
    )


def _entries(top: Mapping[str, Any], folder: Path, where: str) -> list[tuple[Path, Mapping[str, Any]]]:
    """Path and parameters of each model."""
    listed = top.get("models")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MODELS_MAX:
        raise InputError(
            "recipe.models", f"{where}: models: expected a list of 1 to {MODELS_MAX} entries '- model: FILE'"
        )
    entries = []
    for number, entry in enumerate(listed, start=1):
        what = f"models, entry {number}"
        found = _map(entry, what, where)
        _known(found, MODEL, what, where)
        own = _map(found.get("parameters") or {}, f"{what}: parameters", where)
        _known(own, ("weight", "density"), f"{what}: parameters", where)
        entries.append((folder / _text(found.get("model"), f"{what}: model", where), own))
    return entries


def _each(name: str, entries: list[tuple[Path, Mapping[str, Any]]], default: object, where: str) -> list[Value] | None:
    """The setting of that name for each model; None if nobody names one."""
    if default is None and not any(name in own for _, own in entries):
        return None
    found = []
    for number, (_, own) in enumerate(entries, start=1):
        value = own.get(name, default)
        if value is None:
            raise InputError(
                f"recipe.{name}",
                f"{where}: models, entry {number}: no {name}; expected one for each or for none (or one for all, under "
                "parameters)",
            )
        found.append(_value(value, f"models, entry {number}: {name}", where))
    return found


def _plain(values: list[Value]) -> object:
    """One number if it is the same for all models."""
    if len(set(values)) == 1 and not isinstance(values[0], Cases):
        return values[0]
    return values if _named(values) else tuple(values)


def _named(value: object) -> bool:
    """True if the setting depends on the tensor's name."""
    return isinstance(value, Cases) or (isinstance(value, list) and any(isinstance(v, Cases) for v in value))


def _cases(value: Any) -> Any:
    """The setting as `ByName` takes it."""
    if isinstance(value, Cases):
        return value
    return tuple(each if isinstance(each, Cases) else Cases.always(each) for each in value)


def _method(top: Mapping[str, object], where: str) -> str:
    name = _text(top.get("merge_method"), "merge_method", where)
    return METHODS.get(name, name).replace("_", "-")


def _parameters(given: dict[str, Any], method: str, where: str) -> dict[str, object]:
    normalize = given.pop("normalize", None)
    usual = method in NORMALISED
    if normalize is not None and (not isinstance(normalize, bool) or normalize is not usual):
        word = str(usual).lower()
        raise InputError(
            "recipe.normalize",
            f"{where}: parameters: normalize is {shown(str(normalize))}; {shown(method)} takes only {word} "
            f"({'weights count by their ratios' if usual else 'weights are not divided by their sum'})",
        )
    if not isinstance(given.pop("int8_mask", False), bool):
        raise InputError("recipe.type", f"{where}: parameters: int8_mask: expected true or false (it changes nothing)")
    return {RENAMED.get(key, key): _value(value, f"parameters: {shown(key)}", where) for key, value in given.items()}


def _slerp(paths: list[Path], base: Path, where: str) -> list[Path]:
    """mergekit begins at base_model, which is one of the two; t = 0 is our first model."""
    if base not in paths or len(paths) != 2:
        raise InputError(
            "recipe.slerp", f"{where}: slerp: expected two models, and base_model one of them (or left out)"
        )
    return [base, *(p for p in paths if p != base)]


def _globs(top: Mapping[str, object], key: str, where: str) -> tuple[str, ...]:
    value = top.get(key) or []
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list):
        raise InputError("recipe.type", f"{where}: {key}: expected a glob or a list of them")
    return tuple(_text(glob, key, where) for glob in listed)


def _map(value: object, what: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise InputError("recipe.type", f"{where}: {what}: found {type(value).__name__}; expected 'key: value' lines")
    return value


def _known(given: Iterable[str], known: tuple[str, ...], what: str, where: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(known)}"
            raise InputError("recipe.key", f"{where}: {what}: unknown key {shown(key)}; {hint}")


def _text(value: object, what: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError("recipe.type", f"{where}: {what}: found {shown(str(value))}; expected text")
    return value


def _value(value: object, what: str, where: str) -> Value:
    """A number, or numbers for names: [{filter: attention, value: 0.3}, {value: 0.5}].

    mergekit also takes a list of numbers, one per layer (a gradient); that is refused by name.
    """
    if not isinstance(value, list):
        return _number(value, what, where)
    if not value or not all(isinstance(case, Mapping) for case in value):
        raise InputError(
            "recipe.gradient",
            f"{where}: {what}: found a list; expected a number, or entries 'filter: NAME, value: NUMBER' (gradients "
            "over layers are not supported)",
        )
    found: list[tuple[str | None, float]] = []
    for number, case in enumerate(value, start=1):
        _known(_map(case, f"{what}, case {number}", where), ("filter", "value"), f"{what}, case {number}", where)
        part = case.get("filter")
        name = None if part is None or part == "*" else _text(part, f"{what}, case {number}: filter", where)
        found.append((name, _number(case.get("value"), f"{what}, case {number}: value", where)))
    return Cases(tuple(found))


def _number(value: object, what: str, where: str) -> float:
    if isinstance(value, list):
        raise InputError("recipe.gradient", f"{where}: {what}: found a list; gradients over layers are not supported")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("recipe.type", f"{where}: {what}: found {shown(str(value))}; expected a number")
    return value
