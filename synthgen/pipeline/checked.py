"""How many rows the steps that verify answers really checked.

In: a chain, and the counts of what it said. Out: rows per step, and a warning where a step found nothing to check.
"""

from collections.abc import Iterator, Sequence

import orjson

from synthgen.pipeline.verdicts import Counts
from synthgen.refine import Chain
from synthgen.refine.needs import NeedsField

__all__ = ["checked", "names_of", "unchecked"]

_NAMES_SHOWN = 12


def checked(chain: Chain, counts: Counts) -> dict[str, int]:
    """Step -> rows it compared with something; only steps that need a field of the row."""
    return {
        step.id: counts.scored.get(step.id, 0) for step in chain.steps if isinstance(step.params, NeedsField)
    }


def unchecked(chain: Chain, counts: Counts, names: Sequence[str] = ()) -> Iterator[str]:
    """A line for every such step that saw rows and checked none; `names`: fields there are."""
    seen = counts.outcomes.get("accepted", 0) + counts.outcomes.get("rejected", 0)
    seen -= sum(
        n for (stage, _), n in counts.reasons.items() if stage in ("source", "render", "parse", "record")
    )
    for step in chain.steps:
        if seen > 0 and isinstance(step.params, NeedsField) and not counts.scored.get(step.id):
            needed, field = step.params.needs, step.params.field
            lacking = (
                f"none has the field {field!r}" if field else "nothing says which are samples of one question"
            )
            there = f"; there are: {', '.join(names[:_NAMES_SHOWN])}" if names else ""
            yield (
                f"step {step.id} checked none of {seen} rows: {lacking}{there}. "
                f"In a chain of your own name another: `- {step.filter}: {{{needed}: FIELD}}`, or leave the step out"
            )
        seen -= sum(n for (stage, _), n in counts.reasons.items() if stage == f"filter:{step.id}")


def names_of(fields: str) -> list[str]:
    """The names in one row's fields that could hold a reference."""
    return sorted(set(orjson.loads(fields)) - {"prompt", "completion", "id"})
