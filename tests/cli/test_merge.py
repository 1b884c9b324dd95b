"""shoal merge: options reach the engine, recipes mean what mergekit means, and the summary says what was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper, save
from small_nets import save_net, weight_of

from shoal.cli.merge import parse_parameters, parse_weights
from shoal.errors import ArgumentError

A, B, C = "a.onnx", "b.onnx", "c.onnx"


def near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_mean(shoal: Callable, nets: list[np.ndarray]) -> None:
    done = shoal("merge", A, B, C, "-o", "o.onnx")
    assert done.code == 0 and done.err == ""
    near(weight_of("o.onnx"), np.mean(nets[:3], axis=0))
    (line,) = done.out.splitlines()
    for word in ("3 models", "by mean", "1 tensors", "3 parameters", "36 B", "GB/s", "digest", "o.onnx"):
        assert word in line


def test_weights_and_quiet(shoal: Callable, nets: list[np.ndarray]) -> None:
    done = shoal("merge", A, B, C, "-o", "o.onnx", "-w", "1, 0,3", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")
    near(weight_of("o.onnx"), (nets[0] + 3 * nets[2]) / 4)


def test_json_report(shoal: Callable, nets: list[np.ndarray]) -> None:
    report = shoal("merge", A, B, C, "-o", "o.onnx", "--method", "krum", "--format", "json").json
    assert report["rule"] == "krum" and report["tensors_merged"] == 1 and len(report["digest"]) == 64
    chosen = report["notes"]["chosen"]
    near(weight_of("o.onnx"), nets[chosen[0]])
    assert "chosen: " in shoal("merge", A, B, C, "-o", "o.onnx", "--method", "krum").out


def test_parameters_both_ways(shoal: Callable, nets: list[np.ndarray]) -> None:
    for words in (["--t", "0.25"], ["--param", "t=0.25"], ["-p", "t = 0.25"]):
        assert shoal("merge", A, B, "-o", "o.onnx", "-m", "slerp", *words).code == 0
        first = weight_of("o.onnx")
        assert not np.array_equal(first, weight_of(A))
    shoal("merge", A, B, "-o", "o.onnx", "-m", "slerp", "--t", "0")
    near(weight_of("o.onnx"), nets[0])


def test_a_parameter_of_another_rule_lists_the_rules_own(shoal: Callable, nets: list[np.ndarray]) -> None:
    line = shoal("merge", A, B, "-o", "o.onnx", "-m", "dare", "--base", "base.onnx", "--beta", "0.1").error()
    assert "beta" in line and "density" in line and "seed" in line
    assert not Path("o.onnx").exists()


def test_base_and_outer_with_its_memory(shoal: Callable, nets: list[np.ndarray]) -> None:
    words = ["merge", A, B, "-o", "o.onnx", "--base", "base.onnx", "--outer", "momentum", "-p", "eta=0.5"]
    words += ["--outer-state", "state.onnx"]
    delta = np.mean(nets[:2], axis=0) - nets[3]
    assert "momentum" in shoal(*words).out
    near(weight_of("o.onnx"), nets[3] + 0.5 * delta)
    assert "state.onnx: the state of momentum belongs to the base" in shoal(*words).error()
    words[words.index("base.onnx")] = "o.onnx"
    assert shoal(*words).code == 0
    first = nets[3] + 0.5 * delta
    near(weight_of("o.onnx"), first + 0.5 * (0.9 * delta + np.mean(nets[:2], axis=0) - first))


def test_base_is_needed(shoal: Callable, nets: list[np.ndarray]) -> None:
    assert "base" in shoal("merge", A, B, "-o", "o.onnx", "--method", "ties").error()


def test_globs(shoal: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate([A, B]):
        save_net(tmp_path / name, seed, more=[numpy_helper.from_array(np.full(2, seed, np.float32), "head.bias")])
    assert "1 kept local" in shoal("merge", A, B, "-o", "o.onnx", "--exclude", "head.*").out
    assert weight_of("o.onnx", "head.bias").tolist() == [0, 0]
    shoal("merge", A, B, "-o", "o.onnx", "--include", "nothing", "--include", "head.*")
    assert weight_of("o.onnx", "head.bias").tolist() == [0.5, 0.5]
    near(weight_of("o.onnx"), weight_of(A))


def test_integers_option(shoal: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate([A, B]):
        save_net(tmp_path / name, seed, more=[numpy_helper.from_array(np.array(seed, np.int64), "counter")])
    assert "counter" in shoal("merge", A, B, "-o", "o.onnx").error()
    assert shoal("merge", A, B, "-o", "o.onnx", "--integers", "max").code == 0
    assert int(weight_of("o.onnx", "counter")) == 1
    assert "require-equal" in shoal("merge", A, B, "-o", "o.onnx", "--integers", "sum").error()


RULE = "import shoal\n\n@shoal.rule\ndef {name}(values, weights):\n    return (values.min() + values.max()) / 2\n"


def test_rule_file(shoal: Callable, nets: list[np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("numba")
    (tmp_path / "mine.py").write_text(RULE.format(name="cli_middle"))
    assert "by cli-middle" in shoal("merge", A, B, C, "-o", "o.onnx", "--rule-file", "mine.py").out
    near(weight_of("o.onnx"), (np.min(nets[:3], axis=0) + np.max(nets[:3], axis=0)) / 2)
    assert shoal("merge", A, B, C, "-o", "o.onnx", "--rule-file", "mine.py", "-m", "median").code == 0
    near(weight_of("o.onnx"), np.median(nets[:3], axis=0))


def test_two_rules_in_a_file_need_a_name(shoal: Callable, nets: list[np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(RULE.format(name="cli_one") + RULE.format(name="cli_two"))
    assert "cli-one, cli-two" in shoal("merge", A, B, "-o", "o.onnx", "--rule-file", "two.py").error()


@pytest.mark.parametrize(("content", "says"), [("1/0\n", "ZeroDivisionError"), ("x = 1\n", "rule")])
def test_rule_file_that_fails(shoal: Callable, nets: list, tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "bad.py").write_text(content)
    assert says in shoal("merge", A, B, "-o", "o.onnx", "--rule-file", "bad.py").error()
    assert "gone.py" in shoal("merge", A, B, "-o", "o.onnx", "--rule-file", "gone.py").error()


def test_device(shoal: Callable, nets: list[np.ndarray]) -> None:
    assert "tpu" in shoal("merge", A, B, "-o", "o.onnx", "--device", "tpu").error()
    assert shoal("merge", A, B, "-o", "o.onnx", "--device", "cpu").code == 0


def test_output_may_be_an_input(shoal: Callable, nets: list[np.ndarray]) -> None:
    assert shoal("merge", A, B, "-o", A).code == 0
    near(weight_of(A), np.mean(nets[:2], axis=0))


@pytest.mark.parametrize("word", ["--quantised", "--quantized"])
def test_quantised_weights(shoal: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.chdir(tmp_path)
    for scale, name in ((0.5, A), (1.5, B)):
        tensors = [numpy_helper.from_array(np.array([-10, 4], np.int8), "q")]
        tensors.append(numpy_helper.from_array(np.array(scale, np.float32), "s"))
        nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["y"])]
        graph = helper.make_graph(nodes, "net", [], [helper.make_tensor_value_info("y", 1, [2])], tensors)
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), name)
    assert "scale s" in shoal("merge", A, B, "-o", "o.onnx").error()
    assert shoal("merge", A, B, "-o", "o.onnx", word, "merge").code == 0
    near(weight_of("o.onnx", "s"), np.float32(10 / 127))
    assert weight_of("o.onnx", "q").tolist() == [-127, 51]
    assert "refuse, merge" in shoal("merge", A, B, "-o", "o.onnx", word, "average").error()


def test_recipe(shoal: Callable, nets: list[np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(
        "merge_method: linear\nmodels:\n- {model: a.onnx, parameters: {weight: 1}}\n"
        "- {model: b.onnx, parameters: {weight: 3}}\n"
    )
    for words in (["r.yml"], ["--recipe", "r.yml"]):
        assert shoal("merge", *words, "-o", "o.onnx").code == 0
        near(weight_of("o.onnx"), (nets[0] + 3 * nets[1]) / 4)
    assert shoal("merge", "r.yml", "-o", "o.onnx", "--weights", "1,1", "--method", "median").code == 0
    near(weight_of("o.onnx"), (nets[0] + nets[1]) / 2)


def test_recipe_of_a_task_vector(shoal: Callable, nets: list[np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(
        "merge_method: task_arithmetic\nbase_model: base.onnx\nparameters: {lambda: 0.5, normalize: false}\n"
        "models:\n- {model: a.onnx, parameters: {weight: 0.4}}\n- {model: b.onnx, parameters: {weight: 0.8}}\n"
    )
    assert shoal("merge", "r.yml", "-o", "o.onnx").code == 0
    a, b, _, base = nets
    near(weight_of("o.onnx"), base + 0.5 * (0.4 * (a - base) + 0.8 * (b - base)))


def test_words() -> None:
    assert parse_weights("812,240.5, 1e3") == (812, 240.5, 1000)
    assert parse_parameters(["num-malicious-nodes=1", "t=0.5"]) == {"num_malicious_nodes": "1", "t": "0.5"}
    for bad in ("", "1,,2", "1;2", "one"):
        with pytest.raises(ArgumentError):
            parse_weights(bad)
    for bad in ("t", "=1", "t="):
        with pytest.raises(ArgumentError):
            parse_parameters([bad])
