"""What whoever gets the rows may do with them: the gate asked once for every use we know.

In: a registry, decided parts and the question they were decided for. Out: one answer a use. Guarantee: the same gate
and the same facts about the asker as for the rows; nothing is concluded from one use about another.
"""

from collections.abc import Iterable
from dataclasses import replace

from synthgen.dataclasses import dataclass
from synthgen.policy.gate import GateResult, gate
from synthgen.policy.model import Ask, Outcome, Part
from synthgen.policy.registry import Registry
from synthgen.policy.uses import MANNERS, USES

__all__ = ["UseAnswer", "downstream"]


@dataclass(frozen=True, slots=True)
class UseAnswer:
    """`because` are duties where the use is allowed, else the strictest rules that stand in the way, as `rule (doc)`."""

    use: str
    decision: Outcome
    because: tuple[str, ...]


def downstream(registry: Registry, parts: Iterable[Part], ask: Ask) -> tuple[UseAnswer, ...]:
    """Every purpose by itself, and the declared uses in each manner (`commercial`, `research-nc`)."""
    members = tuple(parts)
    alone = [(use, (use,)) for use in USES if use not in MANNERS]
    declared = tuple(use for use in ask.uses if use not in MANNERS)
    in_manner = [(f"{', '.join(declared)}; {manner}", (*declared, manner)) for manner in MANNERS]
    return tuple(
        _answer(label, gate(registry, members, replace(ask, uses=uses)))
        for label, uses in [*alone, *in_manner]
    )


def _answer(use: str, result: GateResult) -> UseAnswer:
    if result.passed:
        return UseAnswer(use, result.outcome, tuple(map(str, result.obligations)))
    spoke = [*result.conflicts, *(c for item in result.parts for c in item.decision.citations)]
    stops = [f"{c.rule} ({c.doc} {c.section})" for c in spoke if c.decision == result.outcome]
    return UseAnswer(use, result.outcome, tuple(dict.fromkeys(stops)))
