"""Asking: one call in front (`Asker.ask`); behind it wires, transports, lanes, prices and budget."""

from typing import TYPE_CHECKING

from synthgen.lazy import lazily

if TYPE_CHECKING:
    from synthgen.asking.ask import Asker, NotAsked, TeacherSpec
    from synthgen.asking.budget import Budget
    from synthgen.asking.lanes import Lane
    from synthgen.asking.prices import batch_price, cost_usd, find_price

__all__ = [
    "Asker",
    "Budget",
    "Lane",
    "NotAsked",
    "TeacherSpec",
    "batch_price",
    "cost_usd",
    "find_price",
]

__getattr__ = lazily(
    __name__,
    {
        "ask": (
            "Asker",
            "NotAsked",
            "TeacherSpec",
        ),
        "budget": ("Budget",),
        "lanes": ("Lane",),
        "prices": (
            "batch_price",
            "cost_usd",
            "find_price",
        ),
    },
)
