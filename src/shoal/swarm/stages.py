"""How long the rounds of a node spend in each phase, and how they end: sums since it started, for whoever watches."""

from __future__ import annotations

import msgspec


class Stages(msgspec.Struct):
    """seconds  by phase, lower case; "train": while no round is open

    The time is told by whoever calls; the phase that lasts is not in ``seconds`` before it ends.
    """

    seconds: dict[str, float] = {}
    _phase: str = ""
    _since_s: float = 0.0

    def lasted(self, now_s: float) -> float:
        """Seconds since the phase began."""
        return max(0.0, now_s - self._since_s) if self._phase else 0.0

    def at(self, phase: str, now_s: float) -> None:
        """The phase now; "" where no round is open."""
        phase = phase.lower() or "train"
        if phase == self._phase:
            return
        if self._phase:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + max(0.0, now_s - self._since_s)
        self._phase, self._since_s = phase, now_s
