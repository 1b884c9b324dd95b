"""A merge written down in mergekit's words, as YAML: what is in the file, checked key by key.

    merge_method: ties
    base_model: base.onnx
    models:
      - model: site-a.onnx
        parameters: {weight: 812}
      - model: site-b.onnx
        parameters: {weight: 240}
    parameters: {density: 0.6, lambda: 1.0}
    include: ["encoder.*"]
    exclude: ["*.running_*"]

Paths are relative to the recipe's own folder.  Only what is written here is understood; everything else is refused, so
that no wish is dropped in silence.
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

#: bytes of a recipe: 1024 models with long paths fit many times
RECIPE_BYTES_MAX = 2**20
#: lists and maps inside each other: a recipe needs 4, and yaml's time grows with the square of it
DEPTH_MAX = 16

TOP = ("merge_method", "models", "base_model", "parameters", "include", "exclude", "integers", "outer")
MODEL = ("model", "parameters")
#: mergekit's names of parameters -> ours, where they differ
RENAMED = {"lambda": "scaling"}
#: mergekit's names of methods -> ours, where they differ in more than "_"
METHODS = {"linear": "mean", "dare_linear": "dare"}
#: methods whose weights mergekit divides by their sum unless told not to, as ours do
NORMALISED = ("mean", "ties", "dare-ties")


@dataclass(frozen=True)
class Recipe:
    """weights  one per model, or None if no model names one"""

    method: str
    models: tuple[Path, ...]
    weights: tuple[float, ...] | None
    base: Path | None
    parameters: dict[str, object]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    integers: str | None
    outer: str | None


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
    listed = top.get("models")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MODELS_MAX:
        raise InputError(
            "recipe.models", f"{where}: models: expected a list of 1 to {MODELS_MAX} entries '- model: FILE'"
        )
    paths, weights, densities = [], [], []
    for number, entry in enumerate(listed, start=1):
        what = f"models, entry {number}"
        found = _map(entry, what, where)
        _known(found, MODEL, what, where)
        paths.append(folder / _text(found.get("model"), f"{what}: model", where))
        own = _map(found.get("parameters") or {}, f"{what}: parameters", where)
        _known(own, ("weight", "density"), f"{what}: parameters", where)
        weights.append(_number(own["weight"], f"{what}: weight", where) if "weight" in own else None)
        densities.append(_number(own["density"], f"{what}: density", where) if "density" in own else None)
    base = folder / _text(top["base_model"], "base_model", where) if top.get("base_model") is not None else None
    parameters = _parameters(top, method, where)
    _one_density(parameters, densities, where)
    if method == "slerp" and base is not None:
        paths, base = _slerp(paths, base, where), None
    integers, outer = top.get("integers"), top.get("outer")
    return Recipe(
        method,
        tuple(paths),
        _weights(weights, where),
        base,
        parameters,
        _globs(top, "include", where),
        _globs(top, "exclude", where),
        None if integers is None else _text(integers, "integers", where),
        None if outer is None else _text(outer, "outer", where),
    )


def _method(top: Mapping[str, object], where: str) -> str:
    name = _text(top.get("merge_method"), "merge_method", where)
    return METHODS.get(name, name).replace("_", "-")


def _parameters(top: Mapping[str, object], method: str, where: str) -> dict[str, object]:
    given = dict(_map(top.get("parameters") or {}, "parameters", where))
    normalize = given.pop("normalize", None)
    usual = method in NORMALISED
    if normalize is not None and (not isinstance(normalize, bool) or normalize is not usual):
        word = str(usual).lower()
        raise InputError(
            "recipe.normalize",
            f"{where}: parameters: normalize is {shown(str(normalize))}; {shown(method)} takes only {word} "
            f"({'weights count by their ratios' if usual else 'weights are not divided by their sum'})",
        )
    out: dict[str, object] = {}
    for key, value in given.items():
        out[RENAMED.get(key, key)] = _number(value, f"parameters: {shown(key)}", where)
    return out


def _one_density(parameters: dict[str, object], densities: list[float | None], where: str) -> None:
    """Our rules have one density for all models; models that name different ones are refused."""
    named = {d for d in densities if d is not None}
    if not named:
        return
    if len(named) > 1 or None in densities or parameters.get("density", *named) not in named:
        raise InputError("recipe.density", f"{where}: models name different densities; expected one for all")
    parameters["density"] = named.pop()


def _slerp(paths: list[Path], base: Path, where: str) -> list[Path]:
    """mergekit begins at base_model, which is one of the two; t = 0 is our first model."""
    if base not in paths or len(paths) != 2:
        raise InputError(
            "recipe.slerp", f"{where}: slerp: expected two models, and base_model one of them (or left out)"
        )
    return [base, *(p for p in paths if p != base)]


def _weights(weights: list[float | None], where: str) -> tuple[float, ...] | None:
    if all(w is None for w in weights):
        return None
    found = [w for w in weights if w is not None]
    if len(found) < len(weights):
        missing = weights.index(None) + 1
        raise InputError(
            "recipe.weight", f"{where}: models, entry {missing}: no weight; expected one for each or for none"
        )
    return tuple(found)


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


def _number(value: object, what: str, where: str) -> float:
    """mergekit also takes a list of numbers, one per layer (a gradient); that is refused by name."""
    if isinstance(value, list):
        raise InputError("recipe.gradient", f"{where}: {what}: found a list; gradients over layers are not supported")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("recipe.type", f"{where}: {what}: found {shown(str(value))}; expected a number")
    return value
