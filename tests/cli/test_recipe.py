"""Recipes: read key by key, and refused by key where they ask for what we do not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.cli.recipe import RECIPE_BYTES_MAX, read_recipe
from shoal.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def read(folder: Path, text: str | bytes):
    path = folder / "r.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recipe(path)


def test_the_example() -> None:
    recipe = read_recipe(ROOT / "examples" / "recipe.yml")
    assert recipe.method == "ties" and recipe.weights == (812, 240, 1504)
    assert [p.name for p in recipe.models] == ["site-a.onnx", "site-b.onnx", "site-c.onnx"]
    assert recipe.base == ROOT / "examples" / "base.onnx"
    assert recipe.parameters == {"density": 0.6, "scaling": 1.0}
    assert recipe.exclude == ("*.running_*", "head.*") and recipe.include == ()


TWO = "models: [{model: a}, {model: b}]\n"


@pytest.mark.parametrize(
    ("method", "ours"),
    [("linear", "mean"), ("dare_linear", "dare"), ("dare_ties", "dare-ties"), ("task_arithmetic", "task-arithmetic")],
)
def test_mergekits_names(tmp_path: Path, method: str, ours: str) -> None:
    assert read(tmp_path, f"merge_method: {method}\n{TWO}").method == ours


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = read(tmp_path, "merge_method: linear\nmodels: [{model: sub/a}, {model: /abs/b}]")
    assert recipe.models == (tmp_path / "sub/a", Path("/abs/b"))


def test_slerp_begins_at_the_base(tmp_path: Path) -> None:
    recipe = read(tmp_path, f"merge_method: slerp\nbase_model: b\nparameters: {{t: 0.3}}\n{TWO}")
    assert [p.name for p in recipe.models] == ["b", "a"] and recipe.base is None and recipe.parameters == {"t": 0.3}


def test_one_density_for_all(tmp_path: Path) -> None:
    models = "models: [{{model: a, parameters: {{density: {}}}}}, {{model: b, parameters: {{density: {}}}}}]"
    assert read(tmp_path, "merge_method: ties\n" + models.format(0.5, 0.5)).parameters == {"density": 0.5}
    with pytest.raises(InputError, match="different densities"):
        read(tmp_path, "merge_method: ties\n" + models.format(0.5, 0.6))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected 'key: value'"),
        ("- a\n", "expected 'key: value'"),
        ("merge_method: linear\n", "models"),
        ("models: [{model: a}]\n", "merge_method"),
        (f"merge_methd: linear\n{TWO}", "did you mean merge_method?"),
        (f"merge_method: linear\ndtype: bfloat16\n{TWO}", "unknown key dtype"),
        (f"merge_method: linear\nslices: []\n{TWO}", "slices"),
        (f"merge_method: linear\nmerge_method: ties\n{TWO}", "twice"),
        ("merge_method: linear\nmodels: [{modle: a}]", "did you mean model?"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {wieght: 1}}]", "did you mean weight?"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: [1, 2]}}]", "gradients"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: yes}}]", "expected a number"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b}]", "entry 2"),
        ("merge_method: linear\nmodels: [{model: 3}]", "expected text"),
        ("merge_method: linear\nmodels: []", "expected a list"),
        (f"merge_method: linear\nparameters: {{normalize: false}}\n{TWO}", "normalize"),
        (f"merge_method: slerp\nbase_model: c\n{TWO}", "slerp"),
        (f"merge_method: linear\nexclude: {{a: b}}\n{TWO}", "exclude"),
        (f"merge_method: !!python/object/apply:os.system [ls]\n{TWO}", "YAML"),
        (f"? [a, b]\n: c\n{TWO}", "YAML"),
        ("merge_method: [unclosed", "YAML"),
        (b"\x80\x81garbage", "YAML"),
        ("a: " + "9" * 10_000, ""),
    ],
)
def test_refused(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    message = str(error.value)
    assert says in message and "r.yml" in message and message.isprintable()


@pytest.mark.timeout(30)
def test_alias_bomb_and_other_bombs(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
    )
    with pytest.raises(InputError, match="alias"):
        read(tmp_path, bomb)
    with pytest.raises(InputError, match="deeper"):
        read(tmp_path, "[" * 100_000)
    with pytest.raises(InputError, match="bytes"):
        read(tmp_path, b"#" * (RECIPE_BYTES_MAX + 1))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yml"):
        read_recipe(tmp_path / "gone.yml")
