"""Recipes: read key by key, and refused by key where they ask for what we do not do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_nets import weight_of

from shoal.cli.recipe import RECIPE_BYTES_MAX, read_recipe
from shoal.errors import InputError
from shoal.merge.by_name import Settings

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


def test_density_of_all_and_of_each(tmp_path: Path) -> None:
    models = "models: [{{model: a, parameters: {{density: {}}}}}, {{model: b, parameters: {{density: {}}}}}]"
    assert read(tmp_path, "merge_method: ties\n" + models.format(0.5, 0.5)).parameters == {"density": 0.5}
    assert read(tmp_path, "merge_method: ties\n" + models.format(0.5, 0.6)).parameters == {"density": (0.5, 0.6)}
    one = "models: [{model: a, parameters: {density: 0.3}}, {model: b}]\n"
    assert read(tmp_path, f"merge_method: ties\n{one}parameters: {{density: 0.7}}").parameters == {
        "density": (0.3, 0.7)
    }
    with pytest.raises(InputError, match="entry 2: no density"):
        read(tmp_path, f"merge_method: ties\n{one}")


def test_weight_of_all(tmp_path: Path) -> None:
    text = "merge_method: task_arithmetic\nparameters: {weight: 0.4}\n"
    assert read(tmp_path, text + "models: [{model: a}, {model: b, parameters: {weight: 0.6}}]").weights == (0.4, 0.6)


@pytest.mark.parametrize(
    ("method", "left"), [("ties", ["a", "b"]), ("dare_linear", ["a", "b"]), ("linear", ["base", "a", "b"])]
)
def test_the_base_among_the_models(tmp_path: Path, method: str, left: list[str]) -> None:
    recipe = read(
        tmp_path, f"merge_method: {method}\nbase_model: base\nmodels: [{{model: base}}, {{model: a}}, {{model: b}}]"
    )
    assert [p.name for p in recipe.models] == left and recipe.base == tmp_path / "base"


README = """
models:
  - model: orca
    parameters:
      density: 0.7
      weight: 1.0
  - model: platypus
    parameters:
      density: 0.5
      weight:
        - filter: self_attn
          value: 0.3
        - filter: "*"
          value: 0.7
  - model: wizard
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: llama
parameters:
  normalize: true
  int8_mask: true
dtype: float16
"""


def test_the_form_of_mergekits_own_example(tmp_path: Path) -> None:
    """Its README's TIES recipe, but for the gradients over layers."""
    recipe = read(tmp_path, README)
    assert recipe.weights is None and recipe.dtype == "float16" and recipe.parameters == {"density": (0.7, 0.5, 0.33)}
    assert recipe.by_name is not None
    for key, weights in {"h.1.mlp.up": (1, 0.7, 0.5), "h.1.self_attn.q": (1, 0.3, 0), "embed": (1, 0.7, 0)}.items():
        assert recipe.by_name.of(key) == Settings(weights, ())


def test_from_outside(shoal: Callable, nets: list[np.ndarray], tmp_path: Path) -> None:
    """A recipe with filters through the command line; what the line says wins; dtype must be the models' own."""
    a, b, *_ = nets
    text = "merge_method: linear\nmodels: [{model: a.onnx, parameters: {weight: [{filter: w, value: 3}, {value: 9}]}}, "
    text += "{model: b.onnx, parameters: {weight: 1}}]\ndtype: "
    (tmp_path / "r.yml").write_text(text + "float32\n")
    assert shoal("merge", "r.yml", "-o", "o.onnx").code == 0
    assert np.allclose(weight_of("o.onnx"), 0.75 * a + 0.25 * b, rtol=1e-6, atol=1e-7)
    assert shoal("merge", "r.yml", "-o", "o.onnx", "--weights", "1,1").code == 0
    assert np.allclose(weight_of("o.onnx"), 0.5 * a + 0.5 * b, rtol=1e-6, atol=1e-7)
    (tmp_path / "r.yml").write_text(text + "float16\n")
    assert "a.onnx: tensor w is float32" in shoal("merge", "r.yml", "-o", "o2.onnx").error()
    assert not (tmp_path / "o2.onnx").exists()


def test_density_of_each_model_on_the_line(shoal: Callable, nets: list[np.ndarray]) -> None:
    words = ["merge", "a.onnx", "b.onnx", "-o", "o.onnx", "--base", "base.onnx", "-m", "ties", "--density"]
    assert shoal(*words, "0.4,1").code == 0
    assert "density: 3 values given for 2 models" in shoal(*words, "0.4,1,1").error()


def test_other_settings_by_name(tmp_path: Path) -> None:
    cases = "[{filter: attn, value: 0.1}, {value: 0.5}]"
    recipe = read(tmp_path, f"merge_method: slerp\nparameters: {{t: {cases}}}\n{TWO}")
    assert recipe.by_name is not None and recipe.parameters == {}
    assert recipe.by_name.of("attn.w") == Settings(None, (("t", 0.1),))
    recipe = read(tmp_path, f"merge_method: ties\nparameters: {{density: {cases}, lambda: {cases}}}\n{TWO}")
    assert recipe.by_name is not None
    assert recipe.by_name.of("w") == Settings(None, (("density", (0.5, 0.5)), ("scaling", 0.5)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected 'key: value'"),
        ("- a\n", "expected 'key: value'"),
        ("merge_method: linear\n", "models"),
        ("models: [{model: a}]\n", "merge_method"),
        (f"merge_methd: linear\n{TWO}", "did you mean merge_method?"),
        (f"merge_method: linear\ntokenizer_source: base\n{TWO}", "unknown key tokenizer_source"),
        (f"merge_method: linear\ndtype: 32\n{TWO}", "dtype"),
        (f"merge_method: linear\nslices: []\n{TWO}", "slices"),
        (f"merge_method: linear\nmerge_method: ties\n{TWO}", "twice"),
        ("merge_method: linear\nmodels: [{modle: a}]", "did you mean model?"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {wieght: 1}}]", "did you mean weight?"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: [1, 2]}}]", "gradients"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: yes}}]", "expected a number"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: []}}]", "gradients"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: [{filter: x}]}}]", "case 1: value"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: [{filtr: x, value: 1}]}}]", "filter?"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: [{value: [1, 2]}]}}]", "gradients"),
        (f"merge_method: ties\nparameters: {{int8_mask: 3}}\n{TWO}", "int8_mask"),
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
