"""How long to train between two merges, by the validation loss: seldom at first, more often as the loss falls."""

from __future__ import annotations

from math import ceil, isfinite, sqrt

from shoal.errors import ArgumentError


class Interval:
    """The adaptive synchronisation interval of AdaComm: steps of training until the next merge.

    Early in training few merges do, and each saves time; near the end the models drift apart between merges, and what
    stays of the error falls with the interval.  So, after a merge with validation loss F,

        interval = ceil(sqrt(F / F0) * first)

    where F0 is the loss that was told first; where that would not be less than before, half of what it was before.  It
    is never less than ``least`` and never grows.

    All sites should merge at the same steps: give them the same ``first`` and tell them the same losses, for example
    the mean over sites that the ledger has (``swarm.mean("loss", wait_s=10)``).  Where losses are noisy, ask after
    every few merges only: the paper does so once a minute.

    first   steps until the first merge after ``next``'s first call;  least  steps at least
    raises  ArgumentError  ``interval.steps``: not 1 <= least <= first
    source  Wang and Joshi, Adaptive Communication Strategies to Achieve the Best Error-Runtime Trade-off in
            Local-Update SGD, MLSys 2019 (arXiv 1810.08313), section 4

        interval = shoal.Interval(first=200)
        while training:
            train(net, interval.steps)
            net.load(swarm.merge(net.tensors(), samples=812))
            interval.next(swarm.mean("loss", wait_s=10))
    """

    def __init__(self, first: int, least: int = 1) -> None:
        if not 1 <= least <= first:
            raise ArgumentError("interval.steps", f"first {first}, least {least}; expected 1 <= least <= first")
        self.steps = first
        self._first = first
        self._least = least
        self._loss: float | None = None

    def next(self, loss: float) -> int:
        """Steps until the next merge, after one with this validation loss.

        A loss that is no finite number above zero says nothing: the interval stays.
        """
        if not isfinite(loss) or loss <= 0:
            return self.steps
        if self._loss is None:
            self._loss = loss
            return self.steps
        wanted = ceil(sqrt(loss / self._loss) * self._first)
        if wanted >= self.steps:
            wanted = ceil(self.steps / 2)
        self.steps = max(self._least, wanted)
        return self.steps
