"""Cross-site evaluation: what sites measure goes into the ledger, and the best certified model is kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from site_folders import SiteFolders
from typer.testing import CliRunner

import shoal
from shoal.cli.commands import app
from shoal.config import Evaluate, read_site
from shoal.errors import ArgumentError, InputError
from shoal.ledger.body import Evaluation, Metric
from shoal.ledger.scores import Scores, less_is_better
from shoal.model.model import load, save
from shoal.swarm.referee import Referee, evaluation, held, measure_by
from shoal.swarm.site import Swarm, open_node

NAMES = ("north", "south", "east")


def until(true: Callable[[], bool]) -> None:
    for _ in range(1500):
        if true():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it did not come about within 30 s")


# --- scores -----------------------------------------------------------------------------------------------------------


def said(round_: int, samples: int, **metrics: float) -> Evaluation:
    return Evaluation(round_, bytes(32), samples, tuple(Metric(n, metrics[n]) for n in sorted(metrics)))


def test_means_are_weighted_by_samples() -> None:
    scores = Scores()
    scores.add(b"a", said(1, 100, auc=0.9, loss=1.0))
    scores.add(b"b", said(1, 300, auc=0.5))
    mean = scores.mean(1, "auc")
    assert mean is not None and (mean.value, mean.sites, mean.samples) == (pytest.approx(0.6), 2, 400)
    assert scores.mean(1, "f1") is None and scores.mean(2, "auc") is None
    assert scores.metrics() == ["auc", "loss"]
    scores.add(b"b", said(1, 100, auc=0.7))
    again = scores.mean(1, "auc")
    assert again is not None and again.value == pytest.approx(0.8), "what is said again takes the place"
    scores.add(b"c", said(2, 2**63 - 1, auc=1.7e308))
    scores.add(b"d", said(2, 2**63 - 1, auc=1.7e308))
    huge = scores.mean(2, "auc")
    assert huge is not None and huge.value == pytest.approx(1.7e308)


def test_the_best_round() -> None:
    scores = Scores()
    for round_, auc, loss in ((1, 0.7, 0.9), (2, 0.8, 0.4), (3, 0.8, 0.5)):
        for site in (b"a", b"b"):
            scores.add(site, said(round_, 100, auc=auc, loss=loss))
    scores.add(b"a", said(4, 100, auc=0.99, loss=0.01))
    best = scores.best()
    assert best is not None and best.round == 3 and best.metric == "auc", "of two equal ones the later; 4 is one site's"
    least = scores.best("loss")
    assert least is not None and least.round == 2
    there = scores.best("auc", [1, 2])
    assert there is not None and there.round == 2
    assert scores.best("f1") is None and Scores().best() is None
    assert less_is_better("val_loss") and less_is_better("RMSE") and not less_is_better("auc")


# --- one site ---------------------------------------------------------------------------------------------------------


def test_what_may_be_said() -> None:
    made = evaluation(3, bytes(32), (10, {"b": 1.0, "a": np.float32(2)}))
    assert [m.name for m in made.metrics] == ["a", "b"] and made.samples == 10
    for bad in ((10, {}), (10, {"auc": float("nan")}), (10, {"": 1.0}), (10, {"x" * 65: 1.0}),
                (10, {f"m{i}": 0.0 for i in range(65)}), (0, {"auc": 1.0}), (2**60, {"auc": 1.0})):  # fmt: skip
        with pytest.raises(ArgumentError):
            evaluation(3, bytes(32), bad)


@pytest.mark.parametrize("outside", [False, True], ids=["one file", "with a data file"])
def test_models_are_kept_and_let_go_of(tmp_path: Path, outside: bool) -> None:
    path, scores = tmp_path / "certified.onnx", Scores()
    referee = Referee(tmp_path, None)
    if outside:
        import onnx

        save({"w": np.zeros(4000, np.float32)}, path)
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="certified.data", size_threshold=0)
    else:
        save({"w": np.zeros(4000, np.float32)}, path)
    for round_, auc in ((1, 0.5), (2, 0.9), (3, 0.6), (4, 0.7), (5, 0.8)):
        with load(path) as model:
            model["w"] = np.full(4000, round_, np.float32)
            model.save(path)
        kept = referee.keep(round_, path)
        assert referee.keep(round_, path) == kept
        scores.add(b"a", said(round_, 10, auc=auc))
        referee.prune(scores)
    assert [one.round for one in held(tmp_path)] == [2, 4, 5]
    for one in held(tmp_path):
        with load(one.path) as model:
            assert model["w"][0] == one.round
    referee.close()


def test_a_measure_that_fails_is_told() -> None:
    def broken(path: Path) -> tuple[int, dict[str, float]]:
        raise RuntimeError("no such column")

    def wrong(path: Path) -> tuple[int, dict[str, float]]:
        raise InputError("data.rows", "no rows")

    for measure, code in ((broken, "evaluate.failed"), (wrong, "data.rows")):
        referee = Referee(Path(), measure)
        referee.measure(1, bytes(32), Path())
        referee.close()
        (news,) = referee.news()
        assert not isinstance(news, Evaluation) and news.code == code


def test_settings_say_how_to_measure(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('name = "north"\n[evaluate]\ndata = "val.npz"\nmetrics = ["auc"]\nbest = "auc"\n')
    found = read_site(path).evaluate
    assert found == Evaluate(str(tmp_path / "val.npz"), ("auc",), "auc")
    path.write_text('name = "north"\n[evaluate]\nmetric = ["auc"]\n')
    with pytest.raises(InputError, match="unknown setting 'metric'"):
        read_site(path)
    assert measure_by(Evaluate()) is None


# --- a swarm ----------------------------------------------------------------------------------------------------------


def net(path: Path, weight: np.ndarray) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logit"]), helper.make_node("Sigmoid", ["logit"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def test_sites_measure_by_their_settings(tmp_path: Path) -> None:
    """Two sites have validation data, the third keeps what they find best; the second of three rounds is it."""
    pytest.importorskip("onnxruntime")
    rng, truth = np.random.default_rng(0), np.array([[1.0], [-2.0], [0.5], [1.5]])
    net(tmp_path / "base.onnx", np.array([[1.0], [1.0], [1.0], [-1.0]]))
    sites = SiteFolders(tmp_path, NAMES, model=tmp_path / "base.onnx")
    for name, rows in (("north", 200), ("south", 400)):
        x = rng.normal(size=(rows, 4)).astype(np.float32)
        np.savez(tmp_path / name / "val.npz", x=x, y=((x @ truth)[:, 0] > 0).astype(np.int64))
        sites.append(name, '[evaluate]\ndata = "val.npz"\nmetrics = ["auc", "loss"]\n')
    sites.append("east", "[evaluate]\n")
    nodes = [open_node(sites.site(name), sites.model) for name in NAMES]
    for node in nodes:
        node.start()
    try:
        for goal in (0.3 * truth, truth, -truth):
            tickets = [node.submit({"w": goal.astype(np.float32)}, 10) for node in nodes]
            round_ = max(ticket.wait(60).round for ticket in tickets)
            until(lambda: all(len(n._peer.scores._said.get(round_, {})) == 2 for n in nodes))  # noqa: B023
            until(lambda: all(not n.status().behind for n in nodes))
        until(lambda: all([(m.round, m.sites) for m in n.status().measured[:1]] == [(round_, 2)] for n in nodes))
        status = nodes[2].status()
        assert status.best.round == 2 and status.best.metric == "auc" and status.best.value > 0.99
        assert status.measured[0].sites == 2 and status.measured[0].samples == 600
    finally:
        for node in nodes:
            node.stop()
    out = tmp_path / "best.onnx"
    for name in ("north", "east"):
        done = CliRunner().invoke(app, ["best", str(sites.settings(name)), "-o", str(out), "--format", "json"])
        told = json.loads(done.output)
        assert done.exit_code == 0 and told["best"]["round"] == 2 and told["metric"] == "auc"
        with load(out) as model:
            assert np.allclose(model["w"], truth, atol=1e-5)
        out.unlink()
    shown = CliRunner().invoke(app, ["best", str(sites.settings("south"))]).output
    assert "auc decides" in shown and "best, kept here" in shown
    shown = CliRunner().invoke(app, ["ledger", "show", str(tmp_path / "east" / "data" / "ledger.db")]).output
    assert "(north, 200 samples)" in shown and "(south, 400" in shown
    with pytest.raises(InputError, match="nobody measured f1"):
        CliRunner().invoke(app, ["best", str(sites.settings("north")), "--metric", "f1"], catch_exceptions=False)
    with pytest.raises(InputError, match="not kept here"):
        words = ["best", str(sites.settings("north")), "--round", "9", "-o", str(out)]
        CliRunner().invoke(app, words, catch_exceptions=False)
    (tmp_path / "north" / "data" / "models" / "2" / "certified.onnx").unlink()
    net(tmp_path / "north" / "data" / "models" / "2" / "certified.onnx", 3 * truth)
    with pytest.raises(InputError, match="not the model that was certified"):
        CliRunner().invoke(app, ["best", str(sites.settings("north")), "-o", str(out)], catch_exceptions=False)
    assert not out.exists()


def test_sites_measure_by_a_callback(tmp_path: Path) -> None:
    sites = SiteFolders(tmp_path, NAMES[:2])
    seen: list[int] = []

    def evaluate(tensors: dict[str, np.ndarray]) -> tuple[int, dict[str, float]]:
        seen.append(int(tensors["steps"][0]))
        return 50, {"loss": float(np.abs(tensors["w"]).mean())}

    swarms = [
        shoal.join(sites.settings(NAMES[0]), sites.model, evaluate),
        shoal.join(sites.settings(NAMES[1]), sites.model),
    ]
    try:
        local = {**swarms[0].tensors, "w": np.full(3000, 0.25, np.float32)}
        merged: list[dict[str, np.ndarray]] = []

        def merge(swarm: Swarm) -> None:
            merged.append(swarm.merge(local, 10))

        threads = [threading.Thread(target=merge, args=(swarm,)) for swarm in swarms]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: all(swarm.mean("loss") is not None for swarm in swarms))
        assert swarms[1].mean("loss") == pytest.approx(0.25) and swarms[1].mean("auc") is None
        assert seen == [3]
    finally:
        for swarm in swarms:
            swarm.close()
    # Who comes back knows what was measured, and does not measure it again.
    with shoal.join(sites.settings(NAMES[0]), None, evaluate) as again:
        until(lambda: again.mean("loss") is not None)
    assert seen == [3]
