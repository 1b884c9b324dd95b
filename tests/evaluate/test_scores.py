"""Outputs of models read as probabilities, and labels as classes."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.errors import InputError
from shoal.evaluate.scores import to_labels, to_probabilities


def test_one_column_of_probabilities() -> None:
    for shape in ((3,), (3, 1)):
        found, kind = to_probabilities(np.array([0.0, 0.25, 1.0], np.float32).reshape(shape))
        assert kind == "probability"
        np.testing.assert_array_equal(found, [[1, 0], [0.75, 0.25], [0, 1]])


def test_one_column_of_logits() -> None:
    found, kind = to_probabilities(np.array([-1000.0, 0.0, 1000.0]))
    assert kind == "logit"
    np.testing.assert_array_equal(found[:, 1], [0, 0.5, 1])


def test_two_columns_need_rows_that_sum_to_one() -> None:
    rows = np.array([[0.2, 0.8], [0.5, 0.5]])
    assert to_probabilities(rows)[1] == "probability"
    found, kind = to_probabilities(rows + np.array([[0, 0.1], [0, 0]]))
    assert kind == "logit"
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_the_reading_can_be_forced() -> None:
    assert to_probabilities(np.array([0.2, 0.4]), "logit")[0][0, 1] == pytest.approx(1 / (1 + np.exp(-0.2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_output_names_the_row(bad: float) -> None:
    with pytest.raises(InputError, match="row 1"):
        to_probabilities(np.array([[0.1], [bad]]))


@pytest.mark.parametrize("shape", [(2, 0), (2, 3, 4), ()])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="shape"):
        to_probabilities(np.zeros(shape))


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, np.bool_])
def test_labels_of_any_whole_kind(kind: type) -> None:
    np.testing.assert_array_equal(to_labels(np.array([[0], [1], [1]], kind), 2), [0, 1, 1])


@pytest.mark.parametrize(("labels", "row"), [([0, 2], 1), ([-1, 0], 0), ([0.5, 0], 0), ([0, np.nan], 1)])
def test_labels_that_are_no_class(labels: list[float], row: int) -> None:
    with pytest.raises(InputError, match=f"row {row}"):
        to_labels(np.array(labels), 2)


def test_text_labels_are_refused() -> None:
    with pytest.raises(InputError, match="dtype"):
        to_labels(np.array(["a", "b"]), 2)
