"""Live or batch: which way each teacher of a plan is asked, and why.

In: a resolved recipe and the number of its rows. Out: one `Mode` a teacher that has a choice, and the recipe with the
prices that follow. A pure function: the plan shows it, `generate` acts on it. Keys do not depend on it, so a plan that
decides otherwise next time buys nothing again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from synthgen.asking import TeacherSpec, batch_price
from synthgen.asking.providers import BatchTeacherConfig
from synthgen.dataclasses import dataclass
from synthgen.pipeline.resolve import Resolved

__all__ = ["AUTO_FROM", "Mode", "choose_modes", "with_modes"]

# `auto` takes a batch from this many requests on. Below, live is over in two minutes at the lowest paid limit of either
# vendor's small models (500 requests a minute and more), where a batch takes an hour as a rule and a day at worst.
AUTO_FROM = 1000


@dataclass(frozen=True, slots=True)
class Mode:
    """How a teacher will be asked, and why."""

    teacher: str
    mode: Literal["live", "batch"]
    why: str


def choose_modes(resolved: Resolved, rows: int) -> tuple[Mode, ...]:
    """One for every teacher whose recipe does not just say `live`."""
    return tuple(_choose(resolved, rows))


def with_modes(resolved: Resolved, modes: Sequence[Mode]) -> Resolved:
    """The recipe with these modes; a teacher asked in batches costs half."""
    specs = dict(resolved.specs)
    for mode in modes:
        if mode.mode == "batch":
            specs[mode.teacher] = _in_batches(specs[mode.teacher])
    return replace(resolved, specs=specs)


def _in_batches(spec: TeacherSpec) -> TeacherSpec:
    price = None if spec.price is None else batch_price(spec.price)
    return replace(spec, mode="batch", price=price)


def _choose(resolved: Resolved, rows: int) -> Iterator[Mode]:
    for alias, spec in resolved.specs.items():
        if not isinstance(spec.config, BatchTeacherConfig) or spec.config.mode == "live":
            continue
        if spec.config.mode == "batch":
            yield Mode(alias, "batch", "the recipe says so")
            continue
        against = _against(resolved, alias, rows)
        yield Mode(
            alias, "live" if against else "batch", against or f"at least {AUTO_FROM} requests, nobody waits"
        )


def _against(resolved: Resolved, alias: str, rows: int) -> str | None:
    """What speaks for live; None: nothing."""
    first, *later = resolved.tree.steps
    requests, previous = 0, 0.0
    for name, share in first.choices:
        requests += round(rows * first.samples * (min(share, 1.0) - previous)) if name == alias else 0
        previous = min(share, 1.0)
    if requests < AUTO_FROM:
        return f"{requests} first requests are fewer than {AUTO_FROM}"
    if later:
        return f"step {later[0].name!r} waits for the answers"
    if resolved.loaded.recipe.target is not None:
        return "with a target, answers decide how much is asked"
    return None
