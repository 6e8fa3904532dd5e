"""Queues and lanes: what is sent next (see `queue`), and when an endpoint can take it (see `lane`)."""

from synthgen.asking.lanes.concurrency import Aimd, Concurrency, Gradient
from synthgen.asking.lanes.lane import Lane, LaneCounts, LaneStopped
from synthgen.asking.lanes.queue import Queue, Turn
from synthgen.asking.lanes.quotas import Bucket, Place, Quotas
from synthgen.asking.lanes.retries import RetryBudget

__all__ = [
    "Aimd",
    "Bucket",
    "Concurrency",
    "Gradient",
    "Lane",
    "LaneCounts",
    "LaneStopped",
    "Place",
    "Queue",
    "Quotas",
    "RetryBudget",
    "Turn",
]
