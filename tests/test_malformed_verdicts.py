"""Ten thousand replies of a judge that hold no verdict: every one is unparsable, none is a score.

Each is drawn from a kind of failure, so that whoever reads a number out of it has invented it. The property tests of
`test_refine_judge` say that no text raises; this says that no broken one counts.
"""

import random
from collections.abc import Callable

import polars as pl
import pytest

from synthgen.refine import judge_verdicts, parse_score

PER_KIND = 500
LABELS = ("Score", "score", "**Rating**", "Final score", "Overall", "Grade", "Bewertung", "评分", "оценка")
KEYS = ("score", "rating", "Score", "overall_score", "grade", "value")
PROSE = (
    "The answer is helpful",
    "It cites a source",
    "The tone is right",
    "Nothing is missing",
    "Der Stil passt",
)
WORDS = (
    "four",
    "high",
    "good",
    "vier",
    "excellent",
    "N/A",
    "unknown",
    "TBD",
    "none",
    "-",
    "?",
    "½",
    "④",
    "IV",
)

ENDS = (":", " is", " =", ": [[", ":**", ': "')

Draw = random.Random


def prose(draw: Draw) -> str:
    return ". ".join(draw.sample(PROSE, draw.randint(1, 3))) + "."


def outside(draw: Draw) -> str:
    return draw.choice(
        ("0", "-1", "-4", "6", "7.5", "42", "99", "1000", "0.5", "5.01", "5,5", "9" * draw.randint(2, 400))
    )


def inside(draw: Draw) -> str:
    return str(draw.randint(1, 5))


def two(draw: Draw) -> tuple[int, int]:
    first, second = draw.sample(range(1, 6), 2)
    return first, second


def contradiction(draw: Draw) -> str:
    first, second = two(draw)
    label = draw.choice(("Score", "Rating", "Grade", "Bewertung"))
    return f"{label}: {first}\n{prose(draw)}\n{label}: {second}\n"


def bounds(draw: Draw) -> str:
    low, high = sorted(two(draw))
    return f"{draw.choice(LABELS)}: {low}{draw.choice(('-', '–', ' to ', ' - ', '~'))}{high}"


def json_of(value: str) -> Callable[[Draw], str]:
    return lambda draw: f'{{"reason": "{prose(draw)}", "{draw.choice(KEYS)}": {value}}}'


KINDS: dict[str, Callable[[Draw], str]] = {
    "nothing": lambda draw: draw.choice(
        ("", " ", "\n\n", "\t", "\0", "\ufeff", "```", "```json\n```", "{}", "[]", "null")
    ),
    "cut off": lambda draw: f"{prose(draw)}\n{draw.choice(LABELS)}{draw.choice(ENDS)}",
    "cut off JSON": lambda draw: f'{{"reason": "{prose(draw)}", "{draw.choice(KEYS)}": ',
    "no number": lambda draw: f"{draw.choice(LABELS)}: {draw.choice(WORDS)}",
    "prose": prose,
    "out of range": lambda draw: f"{draw.choice(LABELS)}: {outside(draw)}",
    "out of range alone": outside,
    "out of range in brackets": lambda draw: f"{prose(draw)} [[{outside(draw)}]]",
    "out of range JSON": lambda draw: json_of(outside(draw).replace(",", "."))(draw),
    "another scale": lambda draw: f"{draw.choice(LABELS)}: {inside(draw)}/{draw.choice((10, 100, 7, 3, 20))}",
    "another scale in words": lambda draw: f"I rate this {inside(draw)} out of {draw.choice((10, 100, 20))}.",
    "a range": bounds,
    "contradiction": contradiction,
    "two brackets": lambda draw: "[[{}]] and [[{}]]".format(*two(draw)),
    "two verdicts": lambda draw: "I give it a {}. Then again I give it a {}.".format(*two(draw)),
    "JSON of another type": lambda draw: json_of(
        draw.choice(("null", "true", "false", "[]", "{}", "[4]", '"four"', '""', '"4-5"', '"n/a"'))
    )(draw),
    "JSON number there is not": lambda draw: json_of(
        draw.choice(("NaN", "Infinity", "-Infinity", "1e999", "--4", "+"))
    )(draw),
    "error page": lambda draw: (
        f"<html><head><title>{draw.randint(500, 504)} Bad Gateway</title></head><body></body></html>"
    ),
    "refusal": lambda draw: (
        f"I can't rate this, because {draw.randint(6, 99)} claims in it cannot be checked."
    ),
    "the rubric again": lambda draw: f"{prose(draw)} Ratings go from 1 to 5, where 1 is worst and 5 is best.",
}


def malformed(kind: str) -> list[str]:
    draw = random.Random(f"malformed {kind}")
    return [KINDS[kind](draw) for _ in range(PER_KIND)]


def test_there_are_ten_thousand() -> None:
    assert len(KINDS) * PER_KIND == 10_000


@pytest.mark.parametrize("kind", KINDS)
def test_no_malformed_verdict_is_a_score(kind: str) -> None:
    read = {text: score for text in malformed(kind) if (score := parse_score(text)) is not None}

    assert read == {}


def test_unparsable_replies_are_rejected_as_unjudged() -> None:
    texts = [text for kind in KINDS for text in malformed(kind)]
    frame = pl.DataFrame(
        {"id": [str(i) for i in range(len(texts))], "score": [parse_score(text) for text in texts]},
        schema={"id": pl.String, "score": pl.Float64},
    )

    verdicts = judge_verdicts(frame, ("<=", 5.0))

    assert verdicts["reason"].unique().to_list() == ["unjudged"]
