"""What is to be merged, as the command line or a recipe says it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shoal.errors import InputError, shown

if TYPE_CHECKING:
    from shoal.merge.by_name import ByName
    from shoal.merge.options import MergeOptions

RECIPES = (".yml", ".yaml")


@dataclass
class Wish:
    """What is to be merged, from the command line and a recipe together.

    parameters  of the rule and the optimiser, by our names; text is parsed by the rule's own check
    """

    models: list[Path]
    method: str = "mean"
    weights: tuple[float, ...] | None = None
    base: Path | None = None
    outer: str | None = None
    parameters: dict[str, object] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    integers: str | None = None
    by_name: ByName | None = None
    dtype: str | None = None

    def overrule(self, weights: bool, parameters: dict[str, object]) -> None:
        """What is said on the command line wins over the recipe, also over what that says of single names.

        weights     the command line gives weights
        parameters  those that it gives
        """
        self.parameters |= parameters
        if self.by_name is not None:
            kept = {name: cases for name, cases in self.by_name.parameters.items() if name not in parameters}
            self.by_name = replace(self.by_name, weights=None if weights else self.by_name.weights, parameters=kept)


def wished(models: list[Path], recipe: Path | None) -> Wish:
    """What the words of a command line ask for, before its options.

    models  paths of models, or of one recipe
    raises  typer.BadParameter  if neither or both are given
            InputError, MachineError  as `read_recipe`
    """
    if recipe is None and len(models) == 1 and models[0].suffix.lower() in RECIPES:
        models, recipe = [], models[0]
    if recipe is None:
        if not models:
            raise typer.BadParameter("name the models to merge, or a recipe")
        return Wish(models)
    if models:
        raise typer.BadParameter("give either models or a recipe, not both")
    from shoal.cli.recipe import read_recipe

    read = read_recipe(recipe)
    return Wish(
        list(read.models),
        read.method,
        read.weights,
        read.base,
        read.outer,
        dict(read.parameters),
        read.include,
        read.exclude,
        read.integers,
        read.by_name,
        read.dtype,
    )


def require_dtype(path: Path, dtype: str, options: MergeOptions) -> None:
    """A recipe's dtype is a promise of what comes out; tensors keep the type that they have.

    raises  InputError("recipe.dtype")  naming the first tensor of another type
    """
    from shoal.model.file import ModelFile

    with ModelFile.open(path) as file:
        for key, ref in file.tensors.items():
            if ref.dtype.merged and options.selects(key) and ref.dtype.name != dtype:
                raise InputError(
                    "recipe.dtype",
                    f"{shown(str(path))}: tensor {shown(key)} is {ref.dtype.name} and keeps its type; the recipe's "
                    f"dtype is {shown(dtype)}",
                )
