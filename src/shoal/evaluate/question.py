"""What is asked of a model and a data file, and the answer: `evaluate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shoal.errors import ArgumentError, InputError, shown
from shoal.evaluate.metrics import METRICS
from shoal.evaluate.scores import KINDS, to_labels, to_probabilities
from shoal.evaluate.session import Array, Session
from shoal.evaluate.table import CsvTable, Table, open_table

#: names under which labels are looked for when none is given
LABEL_NAMES = ("label", "labels", "y", "target", "class")
#: values of scores of all rows together, float64: 1 GiB
SCORES_MAX = 2**27


@dataclass(frozen=True)
class Question:
    """metrics  any of METRICS; empty: all of them
    inputs   names of the data file's columns: one per model input, or (CSV) all of the one input; empty: by name
    labels   name of the column of labels; None: the first of LABEL_NAMES that is there
    output   name of the model's output; None: the first of floating numbers
    scores   how the output is read (scores.KINDS)
    device   cpu or cuda
    """

    metrics: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    labels: str | None = None
    output: str | None = None
    scores: str = "auto"
    device: str = "cpu"


@dataclass(frozen=True)
class Answer:
    """metrics  name -> value, or None where it is not defined for these labels
    scores   how the output was read: probability or logit
    seconds  of reading the data and running the model
    """

    model: str
    data: str
    rows: int
    classes: int
    scores: str
    metrics: dict[str, float | None]
    seconds: float


def evaluate(model: str | Path, data: str | Path, question: Question | None = None) -> Answer:
    """Run a model on a data file and measure its scores against the labels.

    Memory: one batch of inputs, and the scores and labels of all rows.
    raises  ArgumentError  an unknown metric, column or output
            InputError     a file that cannot be used; a metric asked for by name that is not defined for these labels
            MachineError   onnxruntime or the device is missing
    """
    asked = question or Question()
    for name in asked.metrics:
        if name not in METRICS:
            raise ArgumentError("eval.metric", f"no metric {shown(name)}; there are {', '.join(METRICS)}")
    if asked.scores not in KINDS:
        raise ArgumentError("eval.scores", f"scores is {shown(asked.scores)}; expected one of {', '.join(KINDS)}")
    started = time.perf_counter()
    session, table = Session(model, asked.device), open_table(Path(data))
    raw, labels_raw = _run(session, table, asked, shown(str(data)))
    seconds = time.perf_counter() - started
    probabilities, kind = to_probabilities(raw, asked.scores)
    labels = to_labels(labels_raw, probabilities.shape[1])
    values: dict[str, float | None] = {}
    for name in asked.metrics or METRICS:
        try:
            values[name] = METRICS[name](labels, probabilities)
        except InputError:
            if name in asked.metrics:
                raise
            values[name] = None
    return Answer(str(model), str(data), len(labels), probabilities.shape[1], kind, values, seconds)


def _run(session: Session, table: Table, asked: Question, where: str) -> tuple[Array, Array]:
    """The model's output and the labels of all rows."""
    labels = _labels(table, asked, where)
    columns = _columns(session, table, asked, labels, where)
    output = session.output(asked.output)
    needed = list(dict.fromkeys([name for group in columns.values() for name in group] + [labels]))
    step = session.batch_rows(table.row_bytes(needed))
    scores, truths, held = [], [], 0
    for batch in table.batches(needed, step):
        feed = {port: _gather(batch, group, isinstance(table, CsvTable)) for port, group in columns.items()}
        scores.append(session.run(feed, output))
        truths.append(batch[labels])
        held += scores[-1].size
        if held > SCORES_MAX:
            raise InputError(
                "eval.output", f"{where}: more than {SCORES_MAX} scores; expected a model that gives a few per row"
            )
    if not scores:
        raise InputError("data.rows", f"{where}: no rows")
    return np.concatenate(scores), np.concatenate(truths)


def _gather(batch: dict[str, Array], group: Sequence[str], flat: bool) -> Array:
    """One input's array: the column itself, or for a CSV file its columns side by side."""
    if flat and len(group) > 1:
        return np.stack([batch[n] for n in group], axis=1)
    return batch[group[0]]


def _labels(table: Table, asked: Question, where: str) -> str:
    if asked.labels is not None:
        return _there(asked.labels, table, where)
    for name in LABEL_NAMES:
        if name in table.names:
            return name
    raise ArgumentError(
        "eval.labels",
        f"{where}: none of {', '.join(LABEL_NAMES)} is there; "
        f"say which of {_listed(table.names)} holds the labels (--labels)",
    )


def _columns(session: Session, table: Table, asked: Question, labels: str, where: str) -> dict[str, list[str]]:
    """Model input -> columns that make it."""
    ports = [p.name for p in session.inputs]
    flat = isinstance(table, CsvTable)
    given = [_there(n, table, where) for n in asked.inputs]
    others = [n for n in table.names if n != labels]
    if len(ports) == 1 and (flat or len(given) == 1) and given:
        return {ports[0]: given}
    if given:
        if len(given) != len(ports):
            raise ArgumentError(
                "eval.inputs", f"--inputs names {len(given)} columns; the model has inputs {_listed(ports)}"
            )
        return {port: [name] for port, name in zip(ports, given, strict=True)}
    if all(p in table.names for p in ports):
        return {p: [p] for p in ports}
    if len(ports) == 1 and (flat or len(others) == 1) and others:
        return {ports[0]: others}
    raise ArgumentError(
        "eval.inputs",
        f"{where}: has {_listed(table.names)}; the model takes {_listed(ports)}; say which is which (--inputs)",
    )


def _there(name: str, table: Table, where: str) -> str:
    if name not in table.names:
        raise ArgumentError("eval.column", f"{where}: nothing is named {shown(name)}; it has {_listed(table.names)}")
    return name


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(shown(n) for n in names[:8])
    return listed + (f" and {len(names) - 8} more" if len(names) > 8 else "")
