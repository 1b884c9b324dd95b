"""`shoal.merge` on arrays: forms, dtypes, what is refused and how it is named, writing in place."""

from __future__ import annotations

import array
import inspect
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import shoal
from shoal.errors import ArgumentError, InputError

RNG = np.random.default_rng(11)


def state(**more: Any) -> dict[str, Any]:
    return {"w": RNG.normal(size=(3, 4)).astype("f4"), "b": RNG.normal(size=4), **more}


def refused(code: str, call: Callable[[], object]) -> str:
    with pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the door ------------------------------------------------------------------------------------------------------------


def test_the_package_is_the_function_whatever_was_imported_first() -> None:
    import shoal.merge.rules

    assert shoal.merge([np.ones(2)]).tolist() == [1, 1]
    assert "weights" in inspect.signature(shoal.merge).parameters
    assert sys.modules["shoal.merge"] is shoal.merge


# --- forms ---------------------------------------------------------------------------------------------------------------


def test_dicts_in_dict_out_matched_by_name() -> None:
    a, b = state(), state()
    found = shoal.merge([a, dict(reversed(b.items()))])
    assert list(found) == ["w", "b"]
    np.testing.assert_allclose(found["w"], (a["w"] + b["w"]) / 2, rtol=1e-6)
    assert found["w"].dtype == np.float32 and found["b"].dtype == np.float64 and found["w"].shape == (3, 4)


def test_lists_and_single_arrays() -> None:
    a, b = [np.ones(3), np.zeros((2, 2), "f4")], [np.zeros(3), np.ones((2, 2), "f4")]
    first, second = shoal.merge([a, b], weights=[3, 1])
    assert first.tolist() == [0.75] * 3 and second.tolist() == [[0.25, 0.25]] * 2
    assert shoal.merge((np.ones(2), np.zeros(2))).tolist() == [0.5, 0.5]


def test_numbers_and_empty_tensors() -> None:
    found = shoal.merge(
        [{"t": 1.0, "s": np.float32(3), "e": np.zeros((0, 2))}, {"t": 2.0, "s": np.float32(4), "e": np.zeros((0, 2))}]
    )
    assert found["t"].shape == () and found["t"] == 1.5 and found["s"].dtype == np.float32 and found["s"] == 3.5
    assert found["e"].shape == (0, 2)


def test_any_buffer_any_order_any_stride() -> None:
    plain = np.arange(6, dtype="f8").reshape(2, 3)
    for other in (
        plain.astype(">f8"),
        np.asfortranarray(plain),
        np.repeat(plain, 2, axis=1)[:, ::2],
        memoryview(plain),
    ):
        assert shoal.merge([{"w": plain}, {"w": other}])["w"].tolist() == plain.tolist()
    assert shoal.merge([{"w": array.array("d", [1, 2])}, {"w": np.zeros(2)}])["w"].tolist() == [0.5, 1.0]


def test_inputs_are_not_changed() -> None:
    models = [state() for _ in range(5)]
    before = [{k: v.copy() for k, v in m.items()} for m in models]
    for method in ("mean", "median", "bulyan", "ties"):
        shoal.merge(models, method=method, base=models[0])
    for model, old in zip(models, before, strict=True):
        for key, value in model.items():
            assert value.tobytes() == old[key].tobytes()


class Dlpack:
    """An array of another framework, as numpy sees it."""

    def __init__(self, values: Any, device: int = 1) -> None:
        self.values = np.asarray(values)
        self.device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **keywords: Any) -> Any:
        return self.values.__dlpack__(**keywords)


def test_dlpack_comes_in_and_other_devices_are_named() -> None:
    assert shoal.merge([{"w": Dlpack([1.0, 2.0])}, {"w": np.zeros(2)}])["w"].tolist() == [0.5, 1.0]
    text = refused("array.device", lambda: shoal.merge([{"w": np.zeros(2)}, {"w": Dlpack([1.0, 2.0], device=2)}]))
    assert "model 2, tensor w" in text


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    a = {"w": torch.ones(3, requires_grad=True), "h": torch.ones(2, dtype=torch.bfloat16)}
    b = {"w": torch.zeros(3), "h": torch.full((2,), 2.0, dtype=torch.bfloat16)}
    found = shoal.merge([a, b])
    assert found["w"].tolist() == [0.5] * 3 and found["h"].astype(float).tolist() == [1.5, 1.5]
    shoal.merge([a, b], out=b)
    assert b["w"].tolist() == [0.5] * 3 and b["h"].tolist() == [1.5, 1.5]


# --- what is refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"w": np.zeros((3, 4), "f4")}, "model 2 lacks b"),
        ({"w": np.zeros((3, 4), "f4"), "b": np.zeros(4), "c": np.zeros(1)}, "model 2 has c"),
        ({"w": np.zeros((4, 3), "f4"), "b": np.zeros(4)}, "model 2: tensor w is float32"),
        ({"w": np.zeros((3, 4)), "b": np.zeros(4)}, "model 2: tensor w is float64"),
    ],
)
def test_models_that_differ(other: Any, words: str) -> None:
    assert words in refused("merge.differ", lambda: shoal.merge([state(), other]))


def test_things_that_are_no_models() -> None:
    assert "model 2 is a list" in refused("merge.models", lambda: shoal.merge([state(), [np.zeros(3)]]))
    refused("merge.models", lambda: shoal.merge([]))
    refused("merge.models", lambda: shoal.merge({"w": np.zeros(2)}))  # type: ignore[arg-type]
    refused("merge.models", lambda: shoal.merge([state(), "b.onnx"]))
    refused("merge.models", lambda: shoal.merge([{1: np.zeros(2)}]))
    for bad in (np.array(["a"]), np.array([None]), object(), "text", b"bytes"):
        text = refused("array.type", lambda bad=bad: shoal.merge([{"w": np.zeros(1)}, {"w": bad}]))
        assert "model 2, tensor w" in text


@pytest.mark.parametrize(
    "method",
    [
        "mean",
        "median",
        "trimmed-mean",
        "krum",
        "bulyan",
        "geometric-median",
        "ties",
        "slerp",
        "dare",
        "task-arithmetic",
    ],
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_numbers_are_refused_by_model_tensor_and_element(method: str, bad: float) -> None:
    models = [state() for _ in range(2 if method == "slerp" else 5)]
    models[1]["w"][2, 1] = bad
    text = refused("tensor.nonfinite", lambda: shoal.merge(models, method=method, base=state()))
    said = {"nan": "NaN", "inf": "Inf", "-inf": "-Inf"}[str(bad)]
    assert f"model 2: tensor w has {said} at element 9 of 12" in text


def test_a_base_that_is_not_finite_is_refused() -> None:
    base = state()
    base["b"][3] = np.nan
    for options in ({"method": "task-arithmetic"}, {"method": "ties"}, {"outer": "adam"}, {"outer": "sgd"}):
        text = refused(
            "tensor.nonfinite", lambda options=options: shoal.merge([state(), state()], base=base, **options)
        )
        assert "base: tensor b" in text


def test_nonfinite_numbers_may_be_allowed() -> None:
    models = [state() for _ in range(5)]
    models[3]["w"][0, 0] = np.nan
    found = shoal.merge(models, nonfinite="allow")["w"]
    assert np.isnan(found[0, 0]) and np.isfinite(found.reshape(-1)[1:]).all()
    assert np.isfinite(shoal.merge(models, method="median", nonfinite="allow")["w"]).all()


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("method", ["krum", "multi-krum", "geometric-median", "bulyan"])
def test_distance_rules_leave_out_models_that_are_not_finite_if_allowed(method: str, place: int) -> None:
    models = [RNG.normal(size=9) for _ in range(7)]
    models[place][2] = np.inf
    found = shoal.merge(
        models, method=method, nonfinite="allow", **({} if method == "geometric-median" else {"num_malicious_nodes": 1})
    )
    assert np.isfinite(found).all()


def test_a_result_that_does_not_fit_is_refused() -> None:
    big = np.full(3, 6e4, np.float16)
    assert shoal.merge([big, big])[0] == np.float16(6e4)
    with pytest.raises(InputError, match="cannot hold") as caught:
        shoal.merge([big, big], method="task-arithmetic", base=np.zeros(3, np.float16))
    assert caught.value.code == "merge.overflow"


# --- tensors that are never averaged ---------------------------------------------------------------------------------------


def test_whole_numbers() -> None:
    models = [{"w": np.ones(2), "n": np.array([5, k])} for k in (7, 9, 8)]
    text = refused("tensor.differs", lambda: shoal.merge(models))
    assert "model 2: tensor n of int64" in text and "9 at element 1" in text
    assert shoal.merge(models, integers="first")["n"].tolist() == [5, 7]
    assert shoal.merge(models, integers="max")["n"].tolist() == [5, 9]
    assert shoal.merge(models, integers="max", weights=[1, 0, 1])["n"].tolist() == [5, 8]
    assert shoal.merge(models, weights=[0, 1, 0])["n"].tolist() == [5, 9]


@pytest.mark.parametrize(
    "values",
    [
        np.array([True, False]),
        np.array([1j, 2]),
        np.array([1, 2], ml_dtypes.float8_e4m3fn),
        np.array([1, 2], ml_dtypes.int4),
    ],
)
def test_other_types_must_be_equal_whatever_is_asked(values: Any) -> None:
    same = [{"w": np.ones(2), "x": values}, {"w": np.zeros(2), "x": values.copy()}]
    found = shoal.merge(same)
    assert found["x"].dtype == values.dtype and found["x"].tobytes() == values.tobytes()
    same[1]["x"] = values[::-1]
    for integers in ("require-equal", "first", "max"):
        refused("tensor.differs", lambda integers=integers: shoal.merge(same, integers=integers))


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, np.nan], ml_dtypes.float8_e4m3fn),
        np.array([1, -np.inf], ml_dtypes.float8_e5m2),
        np.array([1, np.nan], ml_dtypes.float8_e8m0fnu),
        np.array([1, complex(0, np.inf)], np.complex64),
    ],
)
def test_nan_is_refused_in_types_that_are_only_compared(values: Any) -> None:
    models = [{"w": np.ones(2), "x": values.copy()} for _ in range(2)]
    assert "model 1: tensor x has" in refused("tensor.nonfinite", lambda: shoal.merge(models))
    for options in ({"nonfinite": "allow"}, {"exclude": "x"}):
        found = shoal.merge(models, **options)
        assert found["x"].tobytes() == values.tobytes()


def test_what_is_not_selected_keeps_the_first_value() -> None:
    a, b = state(n=np.array(1)), state(n=np.array(2))
    b["b"][0] = np.nan
    found = shoal.merge([a, b], exclude=["b", "n"])
    assert found["b"].tobytes() == a["b"].tobytes() and found["n"] == 1 and found["w"].tobytes() != a["w"].tobytes()
    found = shoal.merge([a, b], include="w")
    assert found["b"].tobytes() == a["b"].tobytes() and found["w"].tobytes() != a["w"].tobytes()


# --- in place --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["mean", "median", "krum", "bulyan", "ties", "dare", "task-arithmetic", "geometric-median"]
)
@pytest.mark.parametrize("outer", [None, "adam"])
@pytest.mark.parametrize("target", [0, 2, "base"])
def test_out_may_be_an_input_or_the_base(method: str, outer: str | None, target: Any) -> None:
    models, base = [state(n=np.array(4)) for _ in range(3)], state(n=np.array(4))
    expected = shoal.merge(models, method=method, base=base, outer=outer)
    out = base if target == "base" else models[target]
    addresses = {key: value.ctypes.data for key, value in out.items()}
    assert shoal.merge(models, method=method, base=base, outer=outer, out=out) is out
    for key, value in out.items():
        assert value.tobytes() == expected[key].tobytes() and value.ctypes.data == addresses[key]


def test_tied_weights_in_place() -> None:
    """A state_dict often has one memory under two names: it must not be read after it was written."""
    shared = np.arange(8.0)
    first = {"embed": shared, "head": shared, "shifted": shared[2:]}
    second = {"embed": shared * 3, "head": shared * 3, "shifted": shared[2:] * 3}
    shoal.merge([first, second], out=first)
    assert first["embed"].tolist() == (np.arange(8.0) * 2).tolist()
    assert first["shifted"].tolist() == (np.arange(2.0, 8.0) * 2).tolist()


def test_out_that_cannot_be_written() -> None:
    models = [np.ones(4), np.zeros(4)]
    frozen = np.zeros(4)
    frozen.flags.writeable = False
    for out in (frozen, np.zeros(8)[::2], np.zeros(4, ">f8")):
        refused("array.out", lambda out=out: shoal.merge(models, out=out))
    refused("merge.differ", lambda: shoal.merge(models, out=np.zeros(5)))


# --- outer optimisers -------------------------------------------------------------------------------------------------------


def test_sgd_with_eta_one_is_the_merged_model_bit_for_bit() -> None:
    models, base = [state(), state()], state()
    base["w"][0, 0] = 1e30  # base + (merged - base) would lose it
    plain, stepped = shoal.merge(models), shoal.merge(models, base=base, outer="sgd")
    for key, value in plain.items():
        assert stepped[key].tobytes() == value.tobytes()


def test_outer_state_must_belong() -> None:
    models = [np.ones(3), np.zeros(3)]
    memory: dict[str, Any] = {}
    shoal.merge(models, base=models[0], outer="adam", outer_state=memory)
    assert memory["adam/step"] == 1
    assert "state of yogi" in refused(
        "outer.state", lambda: shoal.merge(models, base=models[0], outer="yogi", outer_state=memory)
    )
    other = [np.ones(4), np.zeros(4)]
    refused("outer.state", lambda: shoal.merge(other, base=other[0], outer="adam", outer_state=memory))
    assert memory["adam/step"] == 1


def test_progress_reaches_its_end() -> None:
    seen: list[tuple[int, int]] = []
    shoal.merge([np.ones(100), np.zeros(100)], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1600, 1600) and all(done <= total for done, total in seen)
