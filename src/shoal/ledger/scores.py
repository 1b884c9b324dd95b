"""What the members measured with certified models, put together: means over sites, and which round was best.

A fold over the ledger's evaluations: whoever has the same entries finds the same best round.  Means are weighted by the
samples that each site says it measured on; a member may lie about both, so a best round is advice, and nothing in the
protocol follows from it (docs/SECURITY.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import fsum
from typing import Final

import msgspec

from shoal.ledger.body import Evaluation
from shoal.ledger.entry import Entry
from shoal.ledger.statement import read_statement
from shoal.limits import LEDGER_MODELS_KEPT

#: words in a metric's name that say: less is better
_LESS: Final = frozenset({"loss", "error", "mse", "rmse", "mae", "nll", "perplexity", "brier"})
#: asked for in this order where nobody names a metric
_PREFERRED: Final = ("auc", "accuracy", "f1", "loss")


def less_is_better(metric: str) -> bool:
    """Whether a smaller value of this metric is better: its name has a word such as loss or error."""
    return not _LESS.isdisjoint(re.split(r"[^a-z0-9]+", metric.lower()))


class Mean(msgspec.Struct, frozen=True):
    """A metric of a round's model, over sites.

    value    weighted by samples
    sites    how many measured it;  samples  on how many in all
    """

    round: int
    metric: str
    value: float
    sites: int
    samples: int


class Scores:
    """Of the last LEDGER_MODELS_KEPT rounds; what a site says again about a round takes the place of what it said.

    changes  how often something was added: what was worked out before holds as long as it stays
    """

    def __init__(self) -> None:
        self.changes = 0
        self._said: dict[int, dict[bytes, Evaluation]] = {}

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Scores:
        """Those in entries that a ledger has taken."""
        made = cls()
        for entry in entries:
            statement, body = read_statement(entry.payload)
            if isinstance(body, Evaluation):
                made.add(statement.author, body)
        return made

    def add(self, author: bytes, said: Evaluation) -> None:
        """An evaluation was decided."""
        self.changes += 1
        self._said.setdefault(said.round, {})[author] = said
        for old in sorted(self._said)[:-LEDGER_MODELS_KEPT]:
            del self._said[old]

    @property
    def rounds(self) -> list[int]:
        """Those that anybody measured, ascending."""
        return sorted(self._said)

    def by(self, author: bytes, round_: int) -> Evaluation | None:
        """What this member said about that round."""
        return self._said.get(round_, {}).get(author)

    def metrics(self) -> list[str]:
        """All names, the preferred ones first."""
        names = {m.name for said in self._said.values() for one in said.values() for m in one.metrics}
        return [n for n in _PREFERRED if n in names] + sorted(names.difference(_PREFERRED))

    def mean(self, round_: int, metric: str) -> Mean | None:
        """None if nobody measured it."""
        found = [
            (said.samples, m.value)
            for _, said in sorted(self._said.get(round_, {}).items())
            for m in said.metrics
            if m.name == metric
        ]
        samples = sum(count for count, _ in found)
        if not found or not samples:
            return None
        # Shares first: samples times values could be too large for a float.
        value = fsum(count / samples * value for count, value in found)
        return Mean(round_, metric, value, len(found), samples)

    def best(self, metric: str = "", among: Iterable[int] | None = None) -> Mean | None:
        """The round with the best mean, the later of two that are equal; None if there is none.

        Means over other sites do not compare.  So only rounds count that were measured on more than half of the most
        samples that any round was measured on.

        metric  "" for the first of ``metrics``
        among   these rounds only
        """
        metric = metric or next(iter(self.metrics()), "")
        means = [m for m in (self.mean(round_, metric) for round_ in self.rounds) if m is not None]
        most = max((m.samples for m in means), default=0)
        wanted = None if among is None else set(among)
        good = [m for m in means if 2 * m.samples > most and (wanted is None or m.round in wanted)]
        sign = -1 if less_is_better(metric) else 1
        return max(good, key=lambda m: (sign * m.value, m.round), default=None)
