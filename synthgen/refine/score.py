"""Judge scores: reading them out of a reply.

In: the text of a judge's reply. Out: a number or None. Guarantee: `parse_score` never raises and never answers outside
the range; what cannot be read for certain is None.
Rejected: the last number of a reply (judges quote numbers of the answer they judge), and words ("good" is no score).
"""

import math
import re
from collections.abc import Iterator

import orjson

from synthgen.types import JSONValue

__all__ = ["END", "NUMBER", "SCALE", "number_of", "parse_score"]

_KEYS = ("score", "rating", "overall_score", "overall", "final_score", "grade", "quality", "value")
NUMBER = r"[-+]?\d+(?:[.,]\d+)?"
SCALE = rf"(?:\s*(?:/|out of|of|von|sur|de)\s*(?P<scale>{NUMBER}))?"
# The whole number (of "1e999" that is not 1), and not the lower end of a range: "score 1-5" states the scale.
END = r"(?![\d.,]*\d)(?![eE][-+]?\d)(?!\s*(?:[-–—~]|to|bis|à|or|至)\s*\d)"
_LABEL = (
    r"(?:score|rating|grade|bewertung|note|punktzahl|puntuación|calificación|nota|"
    r"评分|分数|得分|スコア|評価|점수|оценка)"
)
# "Score: 4", "**Rating:** 4/5", "Final score is 4", "Score - 4 out of 5"
_LABELLED = re.compile(
    rf"(?i){_LABEL}[\"'*_`\]]*\s*(?:is|=|:|：|-|–|of|ist|est|es|为|是)?[\s\"'*_`:：\[(<]*"
    rf"(?P<number>{NUMBER}){SCALE}{END}"
)
_ALONE = re.compile(
    rf"(?i)^[\s\"'*_`\[(<]*(?P<number>{NUMBER}){SCALE}[\s\"'*_`\])>.!]*(?:points?|stars?|punkte|分)?\.?\s*$"
)
_VERDICT = re.compile(
    rf"(?i)\b(?:rate|give|assign|award)\b[^\n\d]{{0,40}}?(?P<number>{NUMBER}){SCALE}{END}"
    r"(?=\s*(?:[.!,;:)*\]]|$|stars?|points?))"
)
_SCALED = re.compile(
    rf"(?i)(?<![\d.,/])(?P<number>{NUMBER})\s*(?:/|out of)\s*(?P<scale>{NUMBER})(?![\d/]|[.,]\d)"
)
_BRACKETED = re.compile(rf"\[\[\s*(?P<number>{NUMBER}){SCALE}\s*\]\]")


def parse_score(text: str, low: float = 1, high: float = 5) -> float | None:
    """The score a judge gave, or None where the reply holds none, several, or one outside `low`..`high`.

    Looked for in this order: a JSON object with a key such as `score`; `[[4]]`; a label ("Rating: 4/5"); the whole
    reply or its first or last line as a number; "I rate this a 4"; "4/5" or "4 out of 5" anywhere. A scale that is
    named must end at `high`: "8/10" is no score between 1 and 5. Of several scores that differ, the last counts if
    it is called final or overall, else none.
    """
    found = _json_score(text)
    if found is None:
        found = _text_score(text, high)
    return found if found is not None and low <= found <= high else None


def _json_score(text: str) -> float | None:
    """The number under a key such as `score`, NaN where something else stands there, None where there is no key."""
    for value in _objects(text):
        lowered = {key.lower(): item for key, item in value.items()}
        for key in _KEYS:
            if key in lowered:
                number = _as_number(lowered[key])
                # What stands under the key is the verdict: without a number there, none elsewhere replaces it.
                return math.nan if number is None else number
    return None


def _objects(text: str) -> Iterator[dict[str, JSONValue]]:
    """JSON objects in the text: all of it, then each {...} without nesting."""
    for candidate in (text.strip(), *re.findall(r"\{[^{}]*\}", text)):
        try:
            value = orjson.loads(candidate)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _as_number(value: JSONValue) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    match = _ALONE.match(value) if isinstance(value, str) else None
    return number_of(match["number"]) if match else None


def _text_score(text: str, high: float) -> float | None:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    edges = [lines[0], lines[-1]] if lines else []
    for matches in (
        list(_BRACKETED.finditer(text)),
        list(_LABELLED.finditer(text)),
        [match for line in edges if (match := _ALONE.match(line))],
        list(_VERDICT.finditer(text)),
        list(_SCALED.finditer(text)),
    ):
        numbers = {number_of(m["number"]) for m in matches if _fits(m["scale"], high)}
        if len(numbers) == 1:
            return numbers.pop()
        if numbers:
            return _final(text, matches, high)
        if matches:
            return None
    return None


def _final(text: str, matches: list[re.Match[str]], high: float) -> float | None:
    last = matches[-1]
    before = text[: last.start()].rsplit("\n", 1)[-1]
    named = re.search(r"(?i)(?:final|overall|total|gesamt|总|最终)\W*\w*\W*$", before)
    return number_of(last["number"]) if named and _fits(last["scale"], high) else None


def _fits(scale: str | None, high: float) -> bool:
    return scale is None or number_of(scale) == high


def number_of(text: str) -> float:
    """The number a match of `NUMBER` spells, with a point or a comma."""
    return float(text.replace(",", "."))
