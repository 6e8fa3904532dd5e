"""Judge replies to scores, scores to verdicts."""

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.recipe.model import JudgeConfig
from synthgen.refine import judge_verdicts, parse_score


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"score": 4}', 4.0),
        ('{"Score": "3"}', 3.0),
        ('{"reason": "clear, 2 examples", "rating": 4.5}', 4.5),
        ('```json\n{"score": 2, "why": "vague"}\n```', 2.0),
        ('Here is my verdict: {"score": 5}. Thanks!', 5.0),
        ('{"overall": 3, "parts": {"style": 5}}', 3.0),
        ("4", 4.0),
        (" 4.\n", 4.0),
        ("**5**", 5.0),
        ("4/5", 4.0),
        ("[[3]]", 3.0),
        ("Rating: 4/5", 4.0),
        ("**Score:** 4", 4.0),
        ("**Score**: 4 out of 5", 4.0),
        ("Score: 4 (good)\nReason: 2 of 3 points are covered.", 4.0),
        ("The answer lists 7 things.\n\nFinal score: 4.5", 4.5),
        ("# Score\n4\n", 4.0),
        ("I'd give it 4 out of 5.", 4.0),
        ("On a scale of 1 to 5, I rate this a 4.", 4.0),
        ("Style score: 5\nAccuracy score: 3\nOverall score: 4", 4.0),
        ("Bewertung: 3 von 5", 3.0),
        ("评分：4", 4.0),
        ("スコア: 2", 2.0),
        ("Note : 3,5", 3.5),
        ("5\n\nThe answer is complete.", 5.0),
        ("The answer is complete.\n\n5", 5.0),
    ],
)
def test_a_score_is_read(reply: str, score: float) -> None:
    assert parse_score(reply) == score


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "high",
        "The answer is good.",
        "There are 3 mistakes in it.",
        "8/10",
        "Score: 45",
        "Score: 0",
        "-3",
        "Rate from 1 to 5.",
        "Score (1-5):",
        "score 1-5",
        '{"score": true}',
        '{"score": null}',
        '{"score": 9}',
        "Score: 2\nScore: 4",
        "4 or 5",
        "NaN",
    ],
)
def test_what_is_no_certain_score_is_none(reply: str) -> None:
    assert parse_score(reply) is None


def test_the_range_is_the_caller_s() -> None:
    assert parse_score("8/10", low=0, high=10) == 8.0
    assert parse_score("Score: 0", low=0, high=10) == 0.0


@given(st.text(max_size=300))
def test_any_text_gives_a_number_in_range_or_none(text: str) -> None:
    score = parse_score(text)

    assert score is None or 1 <= score <= 5


pieces = st.sampled_from(
    [
        "score",
        "Rating",
        ":",
        " ",
        "**",
        "4",
        "5",
        "9",
        "/",
        "out of",
        "{",
        "}",
        '"',
        "[[",
        "]]",
        "-",
        ".",
        ",",
        "\n",
        "1e9",
        "final",
        "null",
    ]
)


@given(st.lists(pieces, max_size=30).map("".join))
def test_any_mix_of_the_words_of_a_reply_gives_a_number_in_range_or_none(text: str) -> None:
    score = parse_score(text)

    assert score is None or 1 <= score <= 5


@given(score=st.floats(1, 5), other=st.text(max_size=50))
def test_a_json_object_with_a_score_is_read_whatever_else_it_holds(score: float, other: str) -> None:
    assert parse_score(json.dumps({"explanation": other, "score": score})) == score


def test_scores_become_verdicts() -> None:
    scores = pl.DataFrame({"id": ["a", "b", "c", "d"], "score": [4.0, 3.9, None, float("nan")]})

    verdicts = judge_verdicts(scores, JudgeConfig(teacher="big", keep=">= 4").rule())

    assert verdicts["reason"].to_list() == [None, "judge_below", "unjudged", "unjudged"]
    assert verdicts["stage"].to_list() == [None, "judge", "judge", "judge"]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [(">= 3", [3, 4]), ("> 3", [4]), ("<= 3", [2, 3]), ("< 3", [2]), ("== 3", [3])],
)
def test_every_comparison_keeps_what_it_says(rule: str, kept: list[int]) -> None:
    scores = pl.DataFrame({"id": ["a", "b", "c"], "score": [2, 3, 4]})

    verdicts = judge_verdicts(scores, JudgeConfig(teacher="big", keep=rule).rule())

    assert verdicts.filter(pl.col("reason").is_null())["score"].to_list() == kept


def test_no_rows_give_no_verdicts() -> None:
    scores = pl.DataFrame(schema={"id": pl.String, "score": pl.Float64})

    assert judge_verdicts(scores, (">=", 4.0)).is_empty()
