"""Tokens and money of a run, as the journal's ledger has them: summed over all sessions, nothing counted twice."""

from dataclasses import asdict
from pathlib import Path
from typing import cast

from synthgen.journal import Ledger, Tally
from synthgen.types import JSONValue

__all__ = ["possibly_paid_said", "usage_json"]


def possibly_paid_said(requests: int, reserved_usd: float, run: Path) -> str:
    """What people are told of sends whose reply never came."""
    money = (
        f"up to {reserved_usd:.6f} USD, counted against the cap"
        if reserved_usd
        else "at a price of 0, or unknown"
    )
    return (
        f"{requests} sends never brought a reply and may have been paid ({money}); "
        f"`synthgen journal verify {run}` lists them"
    )


def usage_json(ledger: Ledger, cap_usd: float | None) -> JSONValue:
    """The content of usage.json. `cost_usd` is null where a price was unknown at purchase.

    `lost` are sends whose reply never came (they may have been paid: their reservations stay counted against the
    cap), `unusable` replies that were paid and could not be read.
    """
    by = [
        {"step": step, "teacher": teacher, **_tally(tally)}
        for (step, teacher), tally in sorted(ledger.tallies.items())
    ]
    total = Tally()
    for tally in ledger.tallies.values():
        for name, value in asdict(tally).items():
            setattr(total, name, getattr(total, name) + value)
    return cast(
        JSONValue,
        {
            "format": 1,
            "by_step_and_teacher": by,
            "total": _tally(total),
            "lost": {"requests": ledger.lost, "reserved_usd": ledger.lost_usd},
            "unusable": {"replies": ledger.unusable, "reserved_usd": ledger.unusable_usd},
            "spent_usd": ledger.spent_usd,
            "cap_usd": cap_usd,
        },
    )


def _tally(tally: Tally) -> dict[str, JSONValue]:
    values = asdict(tally)
    unpriced = values.pop("unpriced")
    if unpriced:
        values["cost_usd"] = None
    return values
