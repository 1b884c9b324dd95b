"""Cross-site evaluation at one site: each certified model is measured on this site's own data, and the best is kept.

Below the data folder, models/ROUND/certified.onnx is a hard link to the model of that round, so it takes no room while
it is the one in force; a data file beside it is copied, since external data of two names are refused.  Kept are the two
newest and the best of those that are here.  Measuring takes as long as it takes, on a thread of its own; rounds that
are certified meanwhile are left out.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from math import isfinite
from pathlib import Path
from typing import Final

import msgspec

from shoal.config import Evaluate
from shoal.errors import ArgumentError, InputError, MachineError, ShoalError, shown
from shoal.ledger.body import Evaluation, Metric
from shoal.ledger.scores import Scores
from shoal.limits import LEDGER_METRICS_MAX, LEDGER_NAME_CHARS_MAX, SAMPLES_MAX
from shoal.model.file import ModelFile

MODELS_FOLDER: Final = "models"
#: newest rounds whose models are kept: those about which evaluations may still come
_NEWEST: Final = 2

#: a certified model's file -> (samples, metric -> value)
Measure = Callable[[Path], tuple[int, Mapping[str, float]]]


def measure_by(settings: Evaluate) -> Measure | None:
    """As the site's settings say; None if they name no data: then the site only keeps what others find best."""
    if not settings.data:
        return None
    from shoal.evaluate.question import Question, evaluate

    asked = Question(
        tuple(settings.metrics),
        tuple(settings.inputs),
        settings.labels or None,
        settings.output or None,
        settings.scores,
    )

    def measure(path: Path) -> tuple[int, Mapping[str, float]]:
        answer = evaluate(path, settings.data, asked)
        return answer.rows, {name: value for name, value in answer.metrics.items() if value is not None}

    return measure


def evaluation(round_: int, digest: bytes, measured: tuple[int, Mapping[str, float]]) -> Evaluation:
    """What is said in the ledger.

    raises  ArgumentError  ``evaluate.metrics``: none, too many, or one without a name or a finite value;
                           ``evaluate.samples``
    """
    samples, metrics = measured
    if not 1 <= len(metrics) <= LEDGER_METRICS_MAX:
        raise ArgumentError("evaluate.metrics", f"{len(metrics)} metrics; expected 1 to {LEDGER_METRICS_MAX}")
    for name, value in metrics.items():
        if not 1 <= len(name) <= LEDGER_NAME_CHARS_MAX or not isfinite(value):
            raise ArgumentError("evaluate.metrics", f"{shown(name)} is {value}; expected a name and a finite number")
    if not 1 <= samples <= SAMPLES_MAX:
        raise ArgumentError("evaluate.samples", f"measured on {samples} samples; expected 1 to {SAMPLES_MAX}")
    return Evaluation(round_, digest, samples, tuple(Metric(n, float(metrics[n])) for n in sorted(metrics)))


class Held(msgspec.Struct, frozen=True):
    """A certified model that this site holds."""

    round: int
    path: Path


def held(folder: Path) -> list[Held]:
    """Models below a site's data folder, by round."""
    found = []
    with contextlib.suppress(OSError):
        for place in (folder / MODELS_FOLDER).iterdir():
            files = sorted(place.glob("*.onnx"))
            if place.name.isdecimal() and files:
                found.append(Held(int(place.name), files[0]))
    return sorted(found, key=lambda one: one.round)


class Referee:
    """measure  None: only keep
    best     the metric that decides; "" for the first of `Scores.metrics`
    """

    def __init__(self, folder: Path, measure: Measure | None, best: str = "") -> None:
        self.best = best
        self._folder = folder
        self._measure = measure
        self._worker = ThreadPoolExecutor(1, "shoal-referee")
        self._running: Future[None] | None = None
        self._taken = 0
        self._news: queue.SimpleQueue[Evaluation | ShoalError] = queue.SimpleQueue()

    def keep(self, round_: int, path: Path) -> Path:
        """Keep the certified model of this round, which ``path`` is now; gives its file.

        raises  InputError, MachineError  as opening the model does; ``referee.link``
        """
        place = self._folder / MODELS_FOLDER / str(round_)
        kept = place / path.name
        if kept.exists():
            return kept
        with ModelFile.open(path) as model:
            data = [Path(file) for file in model.data_files()]
        partial = place.with_name(f".{round_}")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700, parents=True)
            os.link(path, partial / path.name)
            for file in data:
                shutil.copyfile(file, partial / file.name)
            os.replace(partial, place)
        except OSError as error:
            raise MachineError("referee.link", f"{place}: {error.strerror}") from None
        return kept

    def take(self, round_: int, digest: bytes, path: Path) -> None:
        """``path`` is the certified model of this round now: keep it, and measure it, unless that has been.

        raises  as ``keep`` does
        """
        if round_ > self._taken:
            self._taken = round_
            self.measure(round_, digest, self.keep(round_, path))

    def measure(self, round_: int, digest: bytes, path: Path) -> None:
        """Begin to measure the model in ``path``, unless one is still being measured."""
        if self._measure is not None and (self._running is None or self._running.done()):
            self._running = self._worker.submit(self._work, self._measure, round_, digest, path)

    def _work(self, measure: Measure, round_: int, digest: bytes, path: Path) -> None:
        try:
            self._news.put(evaluation(round_, digest, measure(path)))
        except ShoalError as error:
            self._news.put(error)
        except Exception as error:  # of a callback that is not ours: it must not end in silence
            told = f"round {round_} was not evaluated: {type(error).__name__}: {error}"
            self._news.put(InputError("evaluate.failed", told))

    def news(self) -> list[Evaluation | ShoalError]:
        """What was measured since the last call, and why it was not."""
        found = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def prune(self, scores: Scores) -> None:
        """Let go of models that are neither new nor the best of those here."""
        here = held(self._folder)
        best = scores.best(self.best, [one.round for one in here])
        for one in here[:-_NEWEST]:
            if best is None or one.round != best.round:
                shutil.rmtree(one.path.parent, ignore_errors=True)

    def close(self) -> None:
        """Wait for what is being measured."""
        self._worker.shutdown(wait=True, cancel_futures=True)
