"""Every rule against its definition in plain numpy, and the cases that are known beforehand."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import shoal
from shoal.errors import ArgumentError
from shoal.merge.average import lowest_terms
from shoal.merge.rules import TABLE

Array = npt.NDArray[Any]
FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def some(count: int, size: int = 40, dtype: Any = np.float32, seed: int = 5) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=size).astype(dtype) for _ in range(count)]


def wide(models: list[Array]) -> Array:
    return np.stack([m.astype(np.float64) for m in models])


def same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def usable(rule: Any, count: int) -> bool:
    return rule.models[0] <= count <= rule.models[1]


# --- what holds for all rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rule", TABLE, ids=lambda r: r.name)
def test_models_equal_to_each_other_and_the_base_come_back_bit_for_bit(rule: Any, dtype: Any) -> None:
    model = some(1, 1000, dtype)[0]
    model[:4] = [0.0, -0.0, 1e-7, -3.5]
    for count in (1, 2, 3, 7):
        if usable(rule, count):
            assert same_bits(shoal.merge([model] * count, method=rule.name, base=model), model)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam", "yogi", "adagrad"])
def test_an_outer_step_of_no_length_gives_the_base_bit_for_bit(name: str) -> None:
    model = np.array([0.0, -0.0, 1e-7, -3.5], np.float32)
    assert same_bits(shoal.merge([model, model], base=model, outer=name), model)
    if name == "sgd":
        assert same_bits(shoal.merge([model, model], base=model, outer=name, eta=0.5), model)


@pytest.mark.parametrize("rule", [r for r in TABLE if not r.needs_base], ids=lambda r: r.name)
def test_one_model_comes_back_or_the_rule_says_why_not(rule: Any) -> None:
    model = some(1)[0]
    if usable(rule, 1):
        assert same_bits(shoal.merge([model], method=rule.name), model)
    else:
        with pytest.raises(ArgumentError, match="models that count; expected"):
            shoal.merge([model], method=rule.name)


@pytest.mark.parametrize("rule", [r for r in TABLE if r.models[1] > 2], ids=lambda r: r.name)
def test_a_model_of_weight_zero_does_not_enter(rule: Any) -> None:
    models = some(4)
    hole = np.full_like(models[0], np.nan)
    base = some(1, seed=9)[0]
    parameters = {"density": 1.0} if "dare" in rule.name else {}  # what dare drops depends on the model's place
    without = shoal.merge(models, weights=[1, 1, 1, 1], method=rule.name, base=base, **parameters)
    for place in range(5):
        padded = [*models[:place], hole, *models[place:]]
        weights = [0.0 if i == place else 1.0 for i in range(5)]
        assert same_bits(shoal.merge(padded, weights=weights, method=rule.name, base=base, **parameters), without)


ORDERLESS = [
    "mean",
    "median",
    "trimmed-mean",
    "geometric-median",
    "krum",
    "multi-krum",
    "bulyan",
    "ties",
    "task-arithmetic",
]


@pytest.mark.parametrize("method", ORDERLESS)
def test_order_of_the_models_does_not_matter(method: str) -> None:
    models = some(5)
    weights = None if method in ("krum", "bulyan") else [1.0, 2.0, 3.0, 4.0, 5.0]
    base = some(1, seed=9)[0]
    first = shoal.merge(models, weights=weights, method=method, base=base)
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
        shuffled = shoal.merge(
            [models[i] for i in order],
            weights=None if weights is None else [weights[i] for i in order],
            method=method,
            base=base,
        )
        np.testing.assert_allclose(shuffled, first, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["mean", "median", "trimmed-mean", "geometric-median", "ties"])
def test_only_the_ratios_of_weights_count(method: str) -> None:
    models, base = some(3), some(1, seed=9)[0]
    one = shoal.merge(models, weights=[1, 2, 5], method=method, base=base)
    for scale in (2.0**-1000, 2.0**1000, 2.0**-60):
        assert same_bits(shoal.merge(models, weights=[scale, 2 * scale, 5 * scale], method=method, base=base), one)


@pytest.mark.parametrize("method", ["mean", "median", "geometric-median"])
def test_a_peer_may_be_split_in_two_halves(method: str) -> None:
    a, b, c = some(3)
    whole = shoal.merge([a, b, c], weights=[4, 2, 1], method=method)
    halves = shoal.merge([a, b, a, c], weights=[2, 2, 2, 1], method=method)
    np.testing.assert_allclose(halves, whole, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("median", {}),
        ("trimmed-mean", {"beta": 0.2}),
        ("geometric-median", {}),
        ("krum", {"num_malicious_nodes": 1}),
        ("multi-krum", {"num_malicious_nodes": 1}),
        ("bulyan", {"num_malicious_nodes": 1}),
    ],
)
@pytest.mark.parametrize("place", [0, 3, 6])
@pytest.mark.parametrize("size", [1e2, 1e12, 1e30])
def test_one_liar_among_seven_moves_nothing(method: str, parameters: dict[str, Any], place: int, size: float) -> None:
    models = some(7)
    honest = wide([m for i, m in enumerate(models) if i != place])
    models[place] = (models[place] * size).astype(np.float32)
    found = shoal.merge(models, method=method, **parameters).astype(np.float64)
    assert np.linalg.norm(found - honest.mean(axis=0)) < 2 * np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()


def test_a_far_liar_who_comes_first_cannot_hide_a_near_one() -> None:
    """The Gram matrix is centred on the first model: were that kept, 1e12 would drown all distances around 1."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=2000)
    honest = [truth + 0.01 * rng.normal(size=2000) for _ in range(5)]
    models = [truth * 1e12, truth + 1.0, *honest]
    chosen = shoal.merge(models, method="multi-krum", num_malicious_nodes=2, num_nodes_to_select=5)
    np.testing.assert_allclose(chosen, np.mean(honest, axis=0), rtol=1e-12)


# --- each rule by itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_mean(dtype: Any) -> None:
    models = some(5, dtype=dtype)
    weights = [812, 240, 1504, 3, 0]
    expected = np.average(wide(models), axis=0, weights=weights)
    np.testing.assert_allclose(shoal.merge(models, weights=weights), expected, rtol=2 * np.finfo(dtype).eps, atol=1e-15)


@pytest.mark.parametrize("count", [2, 3, 6, 7])
def test_median(count: int) -> None:
    models = some(count)
    assert same_bits(shoal.merge(models, method="median"), np.median(wide(models), axis=0).astype(np.float32))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("method", ["mean", "median", "trimmed-mean", "geometric-median", "multi-krum"])
@pytest.mark.parametrize(
    ("weights", "whole"), [([0.1, 0.2, 0.4], [1, 2, 4]), ([1e300] * 3, None), ([7e-310] * 3, None)]
)
def test_weights_count_in_their_lowest_terms(method: str, dtype: Any, weights: list[float], whole: Any) -> None:
    """Bit for bit: many of these values lie half-way between two numbers of the dtype, where the last digit decides."""
    models = [np.ldexp(m.astype(np.float64), -3).astype(dtype) for m in some(3, 2000, dtype)]
    found = shoal.merge(models, method=method, weights=weights)
    assert same_bits(found, shoal.merge(models, method=method, weights=whole))


def test_lowest_terms() -> None:
    assert lowest_terms(None) is None
    assert lowest_terms([812, 240, 1504]) == (203, 60, 376)
    assert lowest_terms([0.5, 1.25]) == (2, 5)
    assert lowest_terms([5e-324, 1.0]) == (5e-324, 1.0)  # no whole numbers below 2**53: as they are
    assert lowest_terms([1e308, 1e308]) == (1, 1)


def test_weighted_median_is_the_median_of_repeated_models() -> None:
    models = some(4)
    repeated = [m for m, k in zip(models, (1, 3, 2, 5), strict=True) for _ in range(k)]
    weighted = shoal.merge(models, method="median", weights=[1, 3, 2, 5])
    assert same_bits(weighted, np.median(wide(repeated), axis=0).astype(np.float32))


@pytest.mark.parametrize(("count", "beta", "cut"), [(10, 0.2, 2), (9, 0.2, 1), (5, 0.49, 2), (4, 0.2, 0)])
def test_trimmed_mean(count: int, beta: float, cut: int) -> None:
    models = some(count)
    expected = np.sort(wide(models), axis=0)[cut : count - cut].mean(axis=0)
    np.testing.assert_allclose(shoal.merge(models, method="trimmed-mean", beta=beta), expected, rtol=1e-6, atol=1e-8)


def test_trimmed_mean_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError, match="leaves none"):
        shoal.merge(some(4), method="trimmed-mean", beta=0.5)


def weiszfeld(rows: Array, weights: Array, steps: int = 20_000) -> Array:
    z = np.average(rows, axis=0, weights=weights)
    for _ in range(steps):
        b = weights / np.maximum(np.linalg.norm(rows - z, axis=1), 1e-12)
        z = b @ rows / b.sum()
    return z


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [5, 1, 2, 1, 3]])
def test_geometric_median(weights: list[int]) -> None:
    models = some(5, dtype=np.float64)
    models[2] *= 30
    found = shoal.merge(models, method="geometric-median", weights=weights)
    # nu * scale = 1e-6 * 9: where the answer lies near a model, smoothing moves it by that much.
    np.testing.assert_allclose(found, weiszfeld(wide(models), np.array(weights, float)), atol=1e-5)


def test_geometric_median_of_a_majority_at_one_point_is_that_point() -> None:
    point, *others = some(3, dtype=np.float64)
    found = shoal.merge([point, point, point, *others], method="geometric-median")
    np.testing.assert_allclose(found, point, atol=1e-4)


def test_geometric_median_of_two_points_is_half_way_in_any_order() -> None:
    """Every point between them is as near; a choice of one of them would depend on the order of the files."""
    a, b, c = some(3)
    half = shoal.merge([a, b])
    for models in ([a, b], [b, a], [a, a, b, b], [b, a, a, b]):
        assert same_bits(shoal.merge(models, method="geometric-median"), half)
    assert same_bits(shoal.merge([a, b], method="geometric-median", weights=[0.7, 0.7]), half)
    assert same_bits(shoal.merge([a, b], method="geometric-median", weights=[2, 1]), a)
    assert same_bits(shoal.merge([b, c, a, a], method="geometric-median"), a)  # half at one point, the rest at two


def test_geometric_median_takes_all_tensors_as_one_vector() -> None:
    models = some(5, dtype=np.float64)
    parts = shoal.merge([{"a": m[:7], "b": m[7:]} for m in models], method="geometric-median")
    whole = shoal.merge(models, method="geometric-median")
    np.testing.assert_allclose(np.concatenate([parts["a"], parts["b"]]), whole, rtol=1e-12)


def plain_krum(rows: Array, malicious: int) -> Array:
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    near = len(rows) - malicious - 2
    return np.sort(squares, axis=1)[:, 1 : near + 1].sum(axis=1)


@pytest.mark.parametrize("malicious", [0, 1, 2])
def test_krum(malicious: int) -> None:
    models = some(7)
    scores = plain_krum(wide(models), malicious)
    assert same_bits(shoal.merge(models, method="krum", num_malicious_nodes=malicious), models[int(np.argmin(scores))])


@pytest.mark.parametrize(("malicious", "select"), [(1, None), (2, 3), (0, 1), (1, 7)])
def test_multi_krum(malicious: int, select: int | None) -> None:
    models, weights = some(7), [1.0, 2, 3, 4, 5, 6, 7]
    chosen = np.argsort(plain_krum(wide(models), malicious))[: select or 7 - malicious]
    expected = np.average(wide(models)[chosen], axis=0, weights=np.array(weights)[chosen])
    found = shoal.merge(
        models, method="multi-krum", weights=weights, num_malicious_nodes=malicious, num_nodes_to_select=select
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_krum_needs_enough_models() -> None:
    with pytest.raises(ArgumentError, match="needs at least 7"):
        shoal.merge(some(6), method="krum", num_malicious_nodes=2)
    with pytest.raises(ArgumentError, match="select"):
        shoal.merge(some(6), method="multi-krum", num_nodes_to_select=7)


def plain_bulyan(rows: Array, malicious: int) -> Array:
    left, chosen = list(range(len(rows))), []
    while len(chosen) < len(rows) - 2 * malicious:
        part = rows[left]
        squares = np.sort(((part[:, None] - part[None]) ** 2).sum(axis=2), axis=1)
        near = min(max(len(left) - malicious - 2, 1), len(left) - 1)
        chosen.append(left.pop(int(np.argmin(squares[:, 1 : near + 1].sum(axis=1)))))
    kept = rows[sorted(chosen)]
    middle = np.median(kept, axis=0)
    order = np.argsort(np.abs(kept - middle), axis=0, kind="stable")
    return np.take_along_axis(kept, order[: len(chosen) - 2 * malicious], axis=0).mean(axis=0)


@pytest.mark.parametrize(("count", "malicious"), [(7, 1), (11, 2), (12, 2), (5, 0)])
def test_bulyan(count: int, malicious: int) -> None:
    models = some(count)
    found = shoal.merge(models, method="bulyan", num_malicious_nodes=malicious)
    np.testing.assert_allclose(found, plain_bulyan(wide(models), malicious), rtol=1e-5, atol=1e-6)


def test_bulyan_needs_enough_models() -> None:
    with pytest.raises(ArgumentError, match="needs at least 11"):
        shoal.merge(some(10), method="bulyan", num_malicious_nodes=2)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp(t: float) -> None:
    a, b = some(2)
    found = shoal.merge([{"w": a}, {"w": b}], method="slerp", t=t)["w"]
    x, y = wide([a, b])
    angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    expected = (np.sin((1 - t) * angle) * x + np.sin(t * angle) * y) / np.sin(angle)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    if t in (0.0, 1.0):
        assert same_bits(found, (a, b)[int(t)])


def test_slerp_of_parallel_or_zero_tensors_is_linear() -> None:
    a = some(1)[0]
    zero = np.zeros_like(a)
    np.testing.assert_allclose(shoal.merge([a, 3 * a], method="slerp", t=0.25), 1.5 * a, rtol=1e-6)
    np.testing.assert_allclose(shoal.merge([a, zero], method="slerp"), 0.5 * a, rtol=1e-6)
    assert not shoal.merge([zero, zero], method="slerp").any()


def test_task_arithmetic_adds_scaled_differences() -> None:
    models, base = some(3), some(1, seed=9)[0]
    x, ground = wide(models), base.astype(np.float64)
    plain = shoal.merge(models, method="task-arithmetic", base=base, scaling=0.4)
    np.testing.assert_allclose(plain, ground + 0.4 * (x - ground).sum(axis=0), rtol=1e-6, atol=1e-7)
    weighted = shoal.merge(models, method="task-arithmetic", base=base, weights=[0.3, 0.5, 0.0])
    expected = ground + 0.3 * (x[0] - ground) + 0.5 * (x[1] - ground)
    np.testing.assert_allclose(weighted, expected, rtol=1e-6, atol=1e-7)


def plain_ties(rows: Array, base: Array, weights: Array, density: float, scaling: float) -> Array:
    deltas = rows - base
    for delta in deltas:
        size = np.abs(delta).astype(np.float32)
        limit = np.sort(size)[::-1][max(int(density * len(delta)), 1) - 1]
        delta[size < limit] = 0
    weighted = deltas * weights[:, None]
    sign = np.where(weighted.sum(axis=0) >= 0, 1.0, -1.0)
    agree = np.sign(deltas) == sign
    total = (weights[:, None] * agree).sum(axis=0)
    mean = np.where(total > 0, (weighted * agree).sum(axis=0) / np.where(total > 0, total, 1), 0)
    return base + scaling * mean


@pytest.mark.parametrize("density", [1.0, 0.5, 0.2, 0.001])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 3.0]])
def test_ties(density: float, weights: list[float] | None) -> None:
    models, base = some(4, 999), some(1, 999, seed=9)[0]
    found = shoal.merge(models, method="ties", base=base, density=density, scaling=0.7, weights=weights)
    expected = plain_ties(wide(models), base.astype(np.float64), np.array(weights or [1.0] * 4), density, 0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_ties_keeps_all_of_equal_size() -> None:
    base = np.zeros(8, np.float32)
    model = np.array([1, -1, 1, -1, 1, 1, 0.5, 0.25], np.float32)
    assert same_bits(
        shoal.merge([model], method="ties", base=base, density=0.25), np.where(abs(model) == 1, model, base)
    )


def test_dare_drops_the_share_and_keeps_the_sum() -> None:
    base = np.zeros(100_000, np.float32)
    model = np.ones(100_000, np.float32)
    found = shoal.merge([model], method="dare", base=base, density=0.25, seed=3)
    assert set(np.unique(found)) == {0.0, 4.0}
    assert abs(found.mean() - 1.0) < 0.02


def test_dare_depends_on_seed_place_and_name_alone() -> None:
    base, model = np.zeros(1000, np.float32), np.ones(1000, np.float32)

    def kept(seed: int, names: list[str], place: int = 0) -> dict[str, Array]:
        models = [dict.fromkeys(names, model), dict.fromkeys(names, model)]
        weights = [1.0 - place, float(place)]
        return shoal.merge(models, weights=weights, method="dare", base=dict.fromkeys(names, base), seed=seed)

    assert same_bits(kept(1, ["a"])["a"], kept(1, ["a", "b"])["a"])
    assert not same_bits(kept(1, ["a"])["a"], kept(2, ["a"])["a"])
    assert not same_bits(kept(1, ["a", "b"])["a"], kept(1, ["a", "b"])["b"])
    assert not same_bits(kept(1, ["a"])["a"], kept(1, ["a"], 1)["a"])


def test_dare_without_dropping_is_task_arithmetic() -> None:
    models, base = some(3, dtype=np.float64), some(1, dtype=np.float64, seed=9)[0]
    dare = shoal.merge(models, method="dare", base=base, density=1.0, scaling=0.5)
    np.testing.assert_allclose(dare, shoal.merge(models, method="task-arithmetic", base=base, scaling=0.5), rtol=1e-12)
    both = shoal.merge(models, method="dare-ties", base=base, density=1.0)
    np.testing.assert_allclose(both, shoal.merge(models, method="ties", base=base, density=1.0), rtol=1e-12)
