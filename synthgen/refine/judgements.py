"""What judges say beside one number: scores by criterion, preferences, and how sure the tokens of a score were.

In: the text of a judge's reply, and its logprobs where they were captured. Out: numbers in range, one of `A`, `B`,
`tie`, or None. Guarantees: nothing here raises, whatever the text; a rubric is read whole or not at all; what
contradicts itself is None. Rejected: filling a missing criterion with the mean of the others (a score nobody gave),
and a lower-case letter as a preference inside prose ("the better one is a ...").
"""

import math
import re
from collections.abc import Iterable, Mapping

from synthgen.refine.score import END, NUMBER, SCALE, number_of
from synthgen.types import Logprobs

__all__ = ["expected_scores", "parse_preference", "parse_rubric"]

# Below this share of the probability at its position, a score was not what the judge was about to write.
_LEAST_MASS = 0.5
_AROUND = " \t\n\"'*_`:([{"

_LETTER = r"(?P<said>A|B|[Tt]ie|TIE|[Nn]either)"
_STOP = r"(?=[\"'*_`)\]}]*\s*(?:[.!,;:}]|$|\n|because\b|since\b|—|–|-))"
_BRACKETED = re.compile(r"\[\[\s*(?P<said>[ABC]|[Tt]ie)\s*\]\]")
_LABELLED = re.compile(
    r"(?i:\b(?:better|winner|preferred|preference|verdict|choice|best)(?:[ _](?:response|answer|one))?)"
    rf"[\"'*_`]*\s*(?i:is|=|:)?[\s\"'*_`:(]*(?i:(?:response|answer|assistant|option)[ _])?[\"'*_`(]*{_LETTER}{_STOP}"
)
_BETTER = re.compile(
    rf"(?i:\b(?:response|answer|assistant|option)[ _])[\"'*_`(]*{_LETTER}[\"'*_`)]*\s+(?i:is|was)\s+(?:(?i:the|clearly|much|slightly)\s+)*"
    r"(?i:better|best|preferred|stronger|winner)\b"
)
_ALONE = re.compile(
    r"(?i)^[\s\"'*_`(]*(?:(?:response|answer|assistant|option)[ _])?(?P<said>A|B|tie)[\s\"'*_`).!]*$"
)


def parse_rubric(text: str, names: Iterable[str], low: float, high: float) -> dict[str, float] | None:
    """Every criterion's score where a reply labels them ("Clarity: 4/5"), else None.

    None as well if one criterion has no score, two that differ, or one outside `low`..`high`.
    """
    found: dict[str, float] = {}
    for name in names:
        label = re.compile(
            rf"(?i)(?<![^\W_]){re.escape(name).replace('_', '[ _]')}[\"'*_`\]]*\s*(?:score|rating)?\s*"
            rf"(?:is|=|:|-|–)?[\s\"'*_`:\[(<]*(?P<number>{NUMBER}){SCALE}{END}"
        )
        matches = list(label.finditer(text))
        if any(match["scale"] and number_of(match["scale"]) != high for match in matches):
            return None
        numbers = {number_of(match["number"]) for match in matches}
        if len(numbers) != 1 or not low <= (score := numbers.pop()) <= high:
            return None
        found[name] = score
    return found


def parse_preference(text: str) -> str | None:
    """`A`, `B` or `tie` where a reply says so without contradicting itself, else None.

    Looked for in this order: `[[A]]` (`[[C]]` is a tie: Zheng et al. 2023, arXiv:2306.05685), a label ("Winner: B"),
    the whole reply or its first or last line, "Response A is better".
    """
    lines = [line for line in text.strip().splitlines() if line.strip()]
    edges = [lines[0], lines[-1]] if lines else []
    for matches in (
        list(_BRACKETED.finditer(text)),
        list(_LABELLED.finditer(text)),
        [match for line in edges if (match := _ALONE.match(line))],
        list(_BETTER.finditer(text)),
    ):
        said = {match["said"].upper() for match in matches}
        if len(said) == 1:
            word = said.pop()
            return word if word in ("A", "B") else "tie"
        if said:
            return None
    return None


def expected_scores(
    written: Mapping[str, float], low: float, high: float, logprobs: Logprobs | None
) -> dict[str, float]:
    """The expected value of each score over the digits the judge could have written in its place.

    The probabilities of the digits `low`..`high` at the position of the written one, renormalised (DEITA: Liu et al.
    2024, arXiv:2312.15685). A criterion is left out where that position cannot be found for certain: no logprobs, a
    score of several tokens (so any range past 9), half a point, or digits that were not likely there at all.
    """
    if logprobs is None or None in logprobs.tokens or not 0 <= low < high <= 9:
        return {}
    tokens = [token or "" for token in logprobs.tokens]
    text = "".join(tokens)
    found: dict[str, float] = {}
    for name, score in written.items():
        at = _token_at(tokens, _digit_at(text, name, score, alone=len(written) == 1))
        if at is None or tokens[at].strip(_AROUND + ",.}]") != f"{score:g}":
            continue
        shares = _shares(logprobs, at, low, high)
        mass = math.fsum(shares.values())
        if mass >= _LEAST_MASS:
            found[name] = math.fsum(digit * share for digit, share in shares.items()) / mass
    return found


def _digit_at(text: str, name: str, score: float, *, alone: bool) -> int | None:
    """Where in the text the score of a criterion stands; the last place, as a judge drafts before it decides."""
    digit = f"{score:g}"
    if len(digit) != 1:
        return None
    labelled = rf"(?i){re.escape(name).replace('_', '[ _]')}\W{{0,6}}(?:is\W{{0,4}})?(?P<digit>{digit})(?![\d]|[.,]\d)"
    places = [match.start("digit") for match in re.finditer(labelled, text)]
    if not places and alone:
        places = [match.start() for match in re.finditer(rf"(?<![\d.,]){digit}(?![\d]|[.,]\d)", text)]
        places = places if len(places) == 1 else []
    return places[-1] if places else None


def _token_at(tokens: list[str], place: int | None) -> int | None:
    if place is None:
        return None
    end = 0
    for number, token in enumerate(tokens):
        end += len(token)
        if place < end:
            return number
    return None


def _shares(logprobs: Logprobs, at: int, low: float, high: float) -> dict[int, float]:
    """Probability of each digit in range at a position, however it is wrapped in spaces and quotes."""
    shares: dict[int, float] = {}
    listed = list(zip(logprobs.top_tokens[at], logprobs.top_logprobs[at], strict=True))
    if all(token != logprobs.tokens[at] for token, _ in listed):
        listed.append((logprobs.tokens[at], logprobs.logprobs[at]))
    for token, logprob in listed:
        digit = (token or "").strip(_AROUND + ",.}]")
        if len(digit) == 1 and digit in "0123456789" and low <= int(digit) <= high:
            shares[int(digit)] = shares.get(int(digit), 0.0) + math.exp(logprob)
    return shares
