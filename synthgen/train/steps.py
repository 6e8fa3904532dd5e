"""Where a training stands whose loop is our own.

In: every step's loss and tokens. Out: `Progress`, as `metrics` makes it of TRL's trainings, for whoever watches.
"""

import time
from collections.abc import Callable

from synthgen.train.metrics import Progress

__all__ = ["Steps"]


class Steps:
    """Counts the steps of a training of `total`, `per_epoch` of them an epoch, from now on."""

    def __init__(self, total: int, per_epoch: int, progress: Callable[[Progress], None] | None) -> None:
        self._total, self._per_epoch, self._progress = total, per_epoch, progress
        self._started = time.monotonic()
        self._done = self._tokens = 0

    def done(self, loss: float, tokens: int) -> None:
        """One more step."""
        self._done += 1
        self._tokens += tokens
        if self._progress is None:
            return
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rest_s = elapsed / self._done * (self._total - self._done)
        epoch = self._done / self._per_epoch
        self._progress(Progress(self._done, self._total, epoch, loss, None, self._tokens / elapsed, rest_s))
