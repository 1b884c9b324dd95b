"""shoal eval: a model on a data file."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.show import Format, line, note, print_json
from shoal.errors import MachineError, shown


def evaluate(
    model: Annotated[Path, typer.Argument(help="ONNX model.", show_default=False, readable=False)],
    data: Annotated[
        Path,
        typer.Argument(
            help="Data: .npz (arrays) or .csv (a header, then numbers).", show_default=False, readable=False
        ),
    ],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="auc, accuracy, f1 or loss; repeatable; all if none is named.")
    ] = None,
    inputs: Annotated[
        str | None, typer.Option("--inputs", help="Arrays or columns for the model's inputs, separated by commas.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Array or column with the labels (else: label, labels, y, target).")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", help="Which output of the model holds the scores.")] = None,
    scores: Annotated[str, typer.Option("--scores", help="What the scores are: auto, probability or logit.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="cpu or cuda (where there is none: cpu).")] = "cpu",
    format: Annotated[Format, typer.Option("--format", help="text or json.")] = Format.text,
) -> None:
    """Run a model on held-out data and measure it: AUC, accuracy, F1 and log loss."""
    from shoal.evaluate.question import Question
    from shoal.evaluate.question import evaluate as answer_to
    from shoal.model.file import ModelFile

    names = tuple(m for word in metric or [] for m in word.split(",") if m)
    columns = tuple(n for n in (inputs or "").split(",") if n)
    # onnxruntime opens a model's external data by itself; Shoal's own reader first says whether they may be opened.
    ModelFile.open(model).close()
    question = Question(names, columns, labels, output, scores, device)
    try:
        answer = answer_to(model, data, question)
    except MachineError as error:
        if device == "cpu" or error.code != "device.cuda":
            raise
        note(f"--device {device} cannot be used, going on with the CPU: {error}")
        answer = answer_to(model, data, replace(question, device="cpu"))
    if format is Format.json:
        print_json(asdict(answer))
        return
    where = f"{shown(answer.model)} on {shown(answer.data)}"
    line(f"{where}: {answer.rows} rows, {answer.classes} classes, read as {answer.scores}")
    for name, value in answer.metrics.items():
        line(f"{name:9} {'not defined for these labels' if value is None else format_number(value)}")


def format_number(value: float) -> str:
    return f"{value:.6f}"
