"""Batches: half the price, within a day (see `batches`). Importing this package loads no SDK."""

from typing import TYPE_CHECKING

from synthgen.lazy import lazily

if TYPE_CHECKING:
    from synthgen.asking.batch.batches import Batches
    from synthgen.asking.batch.calls import Stopped
    from synthgen.asking.batch.connect import connect_batches
    from synthgen.asking.batch.desk import UnderWay
    from synthgen.asking.batch.harvest import Harvest
    from synthgen.asking.batch.vendor import Pace

__all__ = ["Batches", "Harvest", "Pace", "Stopped", "UnderWay", "connect_batches"]

__getattr__ = lazily(
    __name__,
    {
        "batches": ("Batches",),
        "calls": ("Stopped",),
        "connect": ("connect_batches",),
        "desk": ("UnderWay",),
        "harvest": ("Harvest",),
        "vendor": ("Pace",),
    },
)
