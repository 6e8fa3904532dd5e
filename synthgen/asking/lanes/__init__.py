"""Lanes: what may be sent to one endpoint, and when (see `lane`)."""

from synthgen.asking.lanes.concurrency import Aimd, Concurrency, Gradient
from synthgen.asking.lanes.lane import Lane, LaneCounts, LaneStopped
from synthgen.asking.lanes.quotas import Bucket, Place, Quotas

__all__ = [
    "Aimd",
    "Bucket",
    "Concurrency",
    "Gradient",
    "Lane",
    "LaneCounts",
    "LaneStopped",
    "Place",
    "Quotas",
]
