"""Rubrics, preferences and expected scores, read out of replies of every kind."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.refine import expected_scores, parse_preference, parse_rubric
from synthgen.types import Logprobs
from tests.test_malformed_verdicts import KINDS, malformed

NAMES = ("correctness", "clarity")


@pytest.mark.parametrize(
    "reply",
    [
        "Correctness: 4\nClarity: 2",
        "**Correctness:** 4/5\n**Clarity:** 2/5",
        "correctness score: 4, clarity score: 2",
        "- Clarity is 2.\n- Correctness is 4 out of 5.",
        'Drafting. {"correctness": 4, "clarity": 2',
    ],
)
def test_a_rubric_in_words_is_read(reply: str) -> None:
    assert parse_rubric(reply, NAMES, 1, 5) == {"correctness": 4.0, "clarity": 2.0}


@pytest.mark.parametrize(
    "reply",
    [
        "Correctness: 4",
        "Correctness: 4\nClarity: good",
        "Correctness: 4\nClarity: 6",
        "Correctness: 4\nClarity: 2\nClarity: 3",
        "Correctness: 4/10\nClarity: 2",
        "Incorrectness: 4\nClarity: 2",
        "Correctness: 1-5\nClarity: 1-5",
        '{"correctness": null, "clarity": 2}',
    ],
)
def test_half_a_rubric_is_none(reply: str) -> None:
    assert parse_rubric(reply, NAMES, 1, 5) is None


@pytest.mark.parametrize("kind", KINDS)
def test_no_malformed_verdict_is_a_rubric(kind: str) -> None:
    read = [parse_rubric(text, ("score", "rating"), 1, 5) for text in malformed(kind)]

    assert read == [None] * len(read)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("[[A]]", "A"),
        ("After comparing both: [[B]].", "B"),
        ("[[C]]", "tie"),
        ("A", "A"),
        (" b.\n", "B"),
        ("**Tie**", "tie"),
        ("Winner: Response B", "B"),
        ("**Better response:** A", "A"),
        ("The winner is A, because it is right.", "A"),
        ("Response A is clearly better than Response B.", "A"),
        ("Both are fine.\n\nVerdict: tie", "tie"),
        ("Verdict: neither", "tie"),
        ('"better": "B"', "B"),
    ],
)
def test_a_preference_is_read(reply: str, said: str) -> None:
    assert parse_preference(reply) == said


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Both have merits.",
        "The better response is a clear one.",
        "The better one is A or B.",
        "Winner: A\nWinner: B",
        "[[A]] and [[B]]",
        "Response A is better. Response B is better.",
        "A is a letter of the alphabet",
        "Winner: C",
        '{"better": "first"}',
        '{"better": null}',
        "better: A or tie",
    ],
)
def test_what_is_no_certain_preference_is_none(reply: str) -> None:
    assert parse_preference(reply) is None


@pytest.mark.parametrize("kind", KINDS)
def test_no_malformed_verdict_is_a_preference(kind: str) -> None:
    read = [parse_preference(text) for text in malformed(kind)]

    assert read == [None] * len(read)


def test_ten_thousand_malformed_comparisons_are_none() -> None:
    draw = random.Random("malformed comparisons")
    labels = ("Winner", "better", "Verdict", "Preferred response", "Best answer")
    values = ("C", "1", "both", "unclear", "A or B", "A/B", "a", "the first", "null", "AB", "?", "B and A")
    texts = []
    for _ in range(10_000):
        form = draw.choice(("{}: {}", "**{}:** {}", "{} is {}", '{{"{}": "{}"}}', "{}: {}\n\nDone here."))
        texts.append(form.format(draw.choice(labels), draw.choice(values)))

    assert [text for text in texts if parse_preference(text) is not None] == []


@given(st.text(max_size=200))
def test_any_text_is_read_or_none(text: str) -> None:
    assert parse_preference(text) in (None, "A", "B", "tie")
    rubric = parse_rubric(text, NAMES, 1, 5)
    assert rubric is None or all(1 <= score <= 5 for score in rubric.values())


def tokens(*written: str, top: dict[int, dict[str, float]]) -> Logprobs:
    """Logprobs of these tokens; `top` are alternatives with their probabilities, by position."""
    tops = [top.get(at, {token: 0.9}) for at, token in enumerate(written)]
    ranked = [sorted(one.items(), key=lambda item: -item[1]) for one in tops]
    return Logprobs(
        tokens=written,
        token_bytes=(None,) * len(written),
        ids=(None,) * len(written),
        logprobs=tuple(math.log(one.get(token, 1e-4)) for token, one in zip(written, tops, strict=True)),
        top_tokens=tuple(tuple(token for token, _ in one) for one in ranked),
        top_ids=tuple((None,) * len(one) for one in ranked),
        top_logprobs=tuple(tuple(math.log(share) for _, share in one) for one in ranked),
    )


def test_the_expected_score_weighs_the_digits_by_their_probability() -> None:
    captured = tokens('{"', "score", '": ', "4", "}", top={3: {"4": 0.5, "5": 0.3, "3": 0.1, "x": 0.05}})

    found = expected_scores({"score": 4.0}, 1, 5, captured)

    assert found == {"score": pytest.approx((4 * 0.5 + 5 * 0.3 + 3 * 0.1) / 0.9)}


def test_spellings_of_one_digit_count_together() -> None:
    captured = tokens("Score:", " 4", top={1: {" 4": 0.4, "4": 0.2, " 2": 0.2}})

    found = expected_scores({"score": 4.0}, 1, 5, captured)

    assert found == {"score": pytest.approx((4 * 0.6 + 2 * 0.2) / 0.8)}


def test_each_criterion_has_its_own_position() -> None:
    text = ('{"correctness":', "4", ', "clarity":', "2", "}")
    captured = tokens(*text, top={1: {"4": 1.0}, 3: {"2": 0.5, "3": 0.5}})

    found = expected_scores({"correctness": 4.0, "clarity": 2.0}, 1, 5, captured)

    assert found == {"correctness": pytest.approx(4.0), "clarity": pytest.approx(2.5)}


def test_the_last_place_of_a_criterion_counts() -> None:
    captured = tokens("score: ", "4", " no, score: ", "4", top={1: {"4": 1.0}, 3: {"4": 0.5, "1": 0.5}})

    assert expected_scores({"score": 4.0}, 1, 5, captured) == {"score": pytest.approx(2.5)}


def test_digits_outside_the_range_do_not_count() -> None:
    captured = tokens("Score: ", "4", top={1: {"4": 0.6, "9": 0.4}})

    assert expected_scores({"score": 4.0}, 1, 5, captured) == {"score": pytest.approx(4.0)}


@pytest.mark.parametrize(
    ("score", "low", "high", "captured"),
    [
        pytest.param(4.0, 1, 5, None, id="nothing captured"),
        pytest.param(4.5, 1, 5, tokens("score: ", "4", ".", "5", top={}), id="half a point"),
        pytest.param(8.0, 1, 10, tokens("score: ", "8", top={}), id="a range of two digits"),
        pytest.param(4.0, 1, 5, tokens("score: 4", top={}), id="one token with other text"),
        pytest.param(4.0, 1, 5, tokens("score: ", "4", top={1: {"4": 0.2, "I": 0.7}}), id="unlikely digits"),
        pytest.param(4.0, 1, 5, tokens("4 of 4", top={}), id="a digit in two places"),
    ],
)
def test_without_a_certain_position_there_is_no_expected_score(
    score: float, low: float, high: float, captured: Logprobs | None
) -> None:
    assert expected_scores({"score": score}, low, high, captured) == {}


@given(
    score=st.integers(1, 5),
    shares=st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5),
    reason=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40),
)
def test_an_expected_score_is_always_in_range(score: int, shares: list[float], reason: str) -> None:
    head = json.dumps({"reason": reason})[:-1] + ', "score": '
    top = {str(digit + 1): share / sum(shares) for digit, share in enumerate(shares)}
    captured = tokens(head, str(score), "}", top={1: top})

    found = expected_scores({"score": float(score)}, 1, 5, captured)

    assert all(1 <= value <= 5 for value in found.values())
