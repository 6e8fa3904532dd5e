"""Comparisons: from preferences in both orders to a winner, a score, and a ranking of teachers.

In: what a judge said of two answers, shown in both orders. Out: wins as 1, 0.5 and 0; Bradley-Terry strengths;
position bias. Guarantees: a judge that changes its mind with the order has said "tie"; what could not be read in one
order is undecided, which is nobody's point.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from synthgen.dataclasses import dataclass
from synthgen.refine.shares import Estimate, binomial_p, wilson
from synthgen.types import JSONValue

__all__ = ["PositionBias", "bradley_terry", "position_bias", "settled", "win_scores"]

# The iteration ends when no strength moves by more than this, or after so many rounds.
_STILL, _ROUNDS = 1e-9, 10_000


def settled(first_shown: str | None, second_shown: str | None) -> float | None:
    """The first answer's share of the point: 1 won, 0.5 tie, 0 lost, None undecided.

    `first_shown` is what the judge said when the first answer stood in place A, `second_shown` when it stood in B.
    """
    if first_shown is None or second_shown is None:
        return None
    if (first_shown, second_shown) == ("A", "B"):
        return 1.0
    return 0.0 if (first_shown, second_shown) == ("B", "A") else 0.5


def win_scores(players: int, points: Mapping[tuple[int, int], float | None]) -> list[float | None]:
    """Each player's mean point over its decided comparisons, 0..1; None for one that has none.

    `points` maps pairs to the first one's point. In a round robin this ranks as Bradley-Terry does, and says more.
    """
    won: list[list[float]] = [[] for _ in range(players)]
    for (one, other), point in points.items():
        if point is not None:
            won[one].append(point)
            won[other].append(1.0 - point)
    return [sum(own) / len(own) if own else None for own in won]


def bradley_terry(games: Iterable[tuple[str, str, float]]) -> dict[str, float]:
    """Strength of each player, 1.0 on average: i beats j with chance s_i / (s_i + s_j). Ties count half to both.

    Half a win and half a loss against a player of average strength are added for each, so that one who never lost
    has a finite strength. Fitted by minorisation-maximisation (Hunter 2004, Annals of Statistics 32).
    """
    wins: dict[str, float] = {}
    met: dict[tuple[str, str], int] = {}
    for one, other, point in games:
        wins[one] = wins.get(one, 0.0) + point
        wins[other] = wins.get(other, 0.0) + 1 - point
        met[one, other] = met.get((one, other), 0) + 1
    strength = dict.fromkeys(wins, 1.0)
    for _ in range(_ROUNDS):
        shares = {name: 1.0 / (strength[name] + 1.0) for name in strength}
        for (one, other), count in met.items():
            share = count / (strength[one] + strength[other])
            shares[one] += share
            shares[other] += share
        moved = {name: (wins[name] + 0.5) / shares[name] for name in strength}
        still = all(abs(moved[name] - strength[name]) <= _STILL for name in strength)
        strength = moved
        if still:
            break
    mean = sum(strength.values()) / len(strength) if strength else 1.0
    return {name: value / mean for name, value in sorted(strength.items())}


@dataclass(frozen=True, slots=True)
class PositionBias:
    """What the order did to a judge's preferences.

    `consistent`: share of pairs in which both orders say the same. `first`: of the pairs in which the order decided
    alone, the share that preferred the answer shown first; 0.5 is no bias, `p` is the sign test's.
    """

    pairs: int
    undecided: int
    consistent: Estimate | None
    first: Estimate | None
    p: float

    def as_json(self) -> dict[str, JSONValue]:
        """Plain values."""
        return {
            "pairs": self.pairs,
            "undecided": self.undecided,
            "consistent": self.consistent.as_json() if self.consistent else None,
            "first": self.first.as_json() if self.first else None,
            "p": self.p,
        }


def position_bias(pairs: Sequence[tuple[str | None, str | None]]) -> PositionBias:
    """The probe over what was said of each pair in its two orders (as for `settled`)."""
    decided = cast(list[tuple[str, str]], [pair for pair in pairs if None not in pair])
    agreed = sum(pair in {("A", "B"), ("B", "A"), ("tie", "tie")} for pair in decided)
    # Both times the answer in place A: the place decided, not the answer.
    first = sum(pair == ("A", "A") for pair in decided)
    second = sum(pair == ("B", "B") for pair in decided)
    return PositionBias(
        len(pairs),
        len(pairs) - len(decided),
        wilson(agreed, len(decided)),
        wilson(first, first + second),
        binomial_p(first, first + second),
    )
