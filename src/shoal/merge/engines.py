"""A merge whose settings depend on the tensors' names: one engine for all tensors that share their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shoal.errors import ArgumentError, shown
from shoal.merge.by_name import Settings
from shoal.merge.engine import Engine, Outcome
from shoal.merge.moments import Moments
from shoal.merge.options import Plan, Progress, plan
from shoal.merge.running import Running
from shoal.merge.source import Sink, Source, Tensor


class Engines:
    """One merge, as `Engine`, but with ``plan.options.by_name``.

    raises  ArgumentError  naming a tensor, if its settings cannot be used
    """

    def __init__(
        self, plan: Plan, sources: Sequence[Source], base: Source | None, scales: frozenset[str], running: Running
    ) -> None:
        by_name = plan.options.by_name
        self._groups = {} if by_name is None else by_name.groups(sorted(sources[0].tensors))
        self._progress = plan.options.progress
        self._total = 0
        if by_name is None:
            self._engines = [Engine(plan, sources, base, scales, running)]
            return
        self._engines = []
        for settings, keys in self._groups.items():
            part = _part(plan, settings, keys[0], self._told(len(self._engines)))
            self._engines.append(Engine(part, sources, base, scales, running, frozenset(keys)))
        self._total = sum(engine.bytes_total for engine in self._engines)

    def _told(self, place: int) -> Progress | None:
        """What the engine at that place tells of its part, told as a part of the whole."""
        given = self._progress
        if given is None:
            return None

        def tell(read: int, _of: int) -> None:
            before = sum(engine.bytes_total for engine in self._engines[:place])
            given(before + read, max(self._total, before + read))

        return tell

    @property
    def threads(self) -> int:
        return self._engines[0].threads

    @property
    def floats(self) -> list[Tensor]:
        """The tensors that are merged, by key."""
        return sorted((tensor for engine in self._engines for tensor in engine.floats), key=lambda tensor: tensor.key)

    def rewritten(self) -> set[str]:
        """Keys of the tensors whose value may differ from the first model's."""
        return {key for engine in self._engines for key in engine.rewritten()}

    def run(self, sink: Sink, moments: Moments | None = None) -> Outcome:
        """As `Engine.run`."""
        outcomes = [engine.run(sink, moments) for engine in self._engines]
        if not self._groups:
            return outcomes[0]
        notes: dict[str, Any] = {
            "by_name": [
                {"tensors": len(keys), "weights": group.weights, "parameters": dict(group.parameters), **outcome.notes}
                for (group, keys), outcome in zip(self._groups.items(), outcomes, strict=True)
            ]
        }
        return Outcome(
            merged=sum(outcome.merged for outcome in outcomes),
            passed=sum(outcome.passed for outcome in outcomes),
            local=sum(outcome.local for outcome in outcomes),
            parameters=sum(outcome.parameters for outcome in outcomes),
            bytes_read=sum(outcome.bytes_read for outcome in outcomes),
            bytes_written=sum(outcome.bytes_written for outcome in outcomes),
            passes=max(outcome.passes for outcome in outcomes),
            notes=notes,
        )


def _part(whole: Plan, settings: Settings, key: str, progress: Progress | None) -> Plan:
    """The plan for the tensors that share these settings; ``key`` is the first of them."""
    options = replace(
        whole.options,
        weights=whole.options.weights if settings.weights is None else settings.weights,
        parameters={**whole.options.parameters, **dict(settings.parameters)},
        progress=progress,
        by_name=None,
    )
    try:
        return plan(options, whole.models, has_base=True)  # whether there is one was checked with the whole
    except ArgumentError as error:
        raise ArgumentError(error.code, f"tensor {shown(key)}: {error}") from None
