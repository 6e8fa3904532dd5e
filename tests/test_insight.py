"""The numbers of a report: each against a set whose answer is known."""

import random
from pathlib import Path

import polars as pl
import pytest

from synthgen.errors import UsageError
from synthgen.insight import cells, cover, diversity, drop_table, gender_bias, read_word_lists, wilson

COOKING = ["bake", "oven", "flour", "recipe", "butter", "dough", "simmer", "garlic", "onion", "sauce"]
SPACE = [
    "planet",
    "orbit",
    "rocket",
    "comet",
    "galaxy",
    "lunar",
    "telescope",
    "gravity",
    "asteroid",
    "nebula",
]
TAXES = [
    "invoice",
    "deduction",
    "income",
    "audit",
    "refund",
    "payroll",
    "ledger",
    "withholding",
    "fiscal",
    "receipt",
]


def about(words: list[str], count: int, draw: random.Random) -> list[str]:
    return ["How do I handle " + " and ".join(draw.sample(words, 5)) + "?" for _ in range(count)]


def test_a_topic_that_requests_have_and_rows_lack_is_named_and_seeded() -> None:
    draw = random.Random(1)
    requests = [*about(COOKING, 60, draw), *about(SPACE, 60, draw), *about(TAXES, 60, draw)]
    ours = [*about(COOKING, 100, draw), *about(SPACE, 100, draw)]

    found = cover(ours, requests, seeds=10)

    lacking = [row for row in found.report["topics"] if row["lacking"]]
    words = {word for row in lacking for word in str(row["topic"]).split(", ")}
    assert words
    assert words <= set(TAXES)
    assert len(found.seeds) == 10
    assert all(120 <= seed.place < 180 for seed in found.seeds)


def test_rows_equal_to_the_requests_cover_them() -> None:
    requests = about(COOKING, 50, random.Random(2))

    found = cover(requests, requests)

    assert found.report["ngrams_seen"] == {"1": 1.0, "2": 1.0, "3": 1.0}
    assert found.report["rare_cases"] == 0
    assert found.seeds == []


def test_coverage_does_not_depend_on_when_it_is_computed() -> None:
    draw = random.Random(3)
    requests, ours = about(SPACE + TAXES, 80, draw), about(COOKING, 30, draw)

    assert cover(ours, requests) == cover(ours, requests)


def test_a_rare_request_is_a_seed() -> None:
    draw = random.Random(4)
    requests = [*about(COOKING, 80, draw), "Zoological taxonomies puzzle platypus curators worldwide."]

    found = cover(about(COOKING, 80, draw), requests)

    assert [(seed.place, seed.why) for seed in found.seeds] == [(80, "rare_case")]


def test_requests_without_words_are_no_error() -> None:
    assert cover(["Hello there"], ["", "?!"]).seeds == []


def test_repeated_texts_are_less_diverse() -> None:
    draw = random.Random(5)
    varied = [" ".join(draw.choices(COOKING + SPACE + TAXES, k=30)) for _ in range(100)]

    one, many = diversity([varied[0]] * 100), diversity(varied)

    for name in ("distinct_1", "distinct_2", "distinct_3"):
        assert one[name] < many[name]
    assert one["repeated_4grams"] == 1.0
    assert one["compression"] > many["compression"]
    assert one["openings"]["different"] == 1
    assert one["clusters"]["largest"] == [100]
    assert many["clusters"]["clusters"] == 0


def test_distinct_n_is_the_share_of_different_ngrams() -> None:
    found = diversity(["a b a b", "a c"])

    assert (found["distinct_1"], found["distinct_2"]) == (0.5, 0.75)


def test_wilson_intervals_are_the_textbooks() -> None:
    low, high = wilson(1, 10)

    assert (round(low, 4), round(high, 4)) == (0.0179, 0.4042)
    assert wilson(0, 0) == (0.0, 1.0)


def test_losses_add_up_and_an_unlike_teacher_is_marked() -> None:
    good = [("good", None, None)] * 98 + [("good", "filter:length", "too_short")] * 2
    bad = [("bad", None, None)] * 50 + [("bad", "filter:length", "too_short")] * 50
    frame = pl.DataFrame(good + bad, schema=["teacher", "stage", "reason"], orient="row")

    first, second = drop_table(frame)

    assert (first["teacher"], first["rows"], first["of"], first["unlike_others"]) == ("bad", 50, 100, True)
    assert (second["rows"], second["share"]) == (2, 0.02)


def test_a_single_teacher_is_unlike_nobody() -> None:
    frame = pl.DataFrame({"teacher": ["a", "a"], "stage": [None, "judge"], "reason": [None, "judge_below"]})

    assert [row["unlike_others"] for row in drop_table(frame)] == [False]


def test_combinations_without_an_accepted_row_are_listed() -> None:
    frame = pl.DataFrame(
        {"topic": ["a", "a", "b"], "level": ["x", "y", "x"], "accepted": [True, False, True]}
    )

    found = cells(frame, {"topic": ["a", "b", "c"], "level": ["x", "y"]})

    assert (found["cells"], found["empty"]) == (6, 4)
    assert {"topic": "a", "level": "y"} in found["empty_cells"]
    assert {"topic": "a", "level": "x"} not in found["empty_cells"]


def test_a_teacher_that_makes_every_nurse_a_woman_is_seen_to_amplify() -> None:
    prompts = ["Describe a nurse at work.", "Describe an engineer at work.", "She reads.", "He reads."] * 50
    answers = ["The nurse checks her list.", "The engineer checks his list.", "She reads.", "He reads."] * 50

    report = gender_bias(prompts, answers, read_word_lists())

    nurse, engineer = (
        next(row for row in report["professions"] if row["profession"] == name)
        for name in ("nurse", "engineer")
    )
    assert nurse["prompts"]["female"] == 0
    assert nurse["answers"]["low"] > 0
    assert engineer["answers"]["high"] < 0
    assert nurse["after_neutral"] == {"female": 50, "male": 0}


def test_amplification_is_answers_less_prompts() -> None:
    prompts = ["Her nurse is kind.", "His nurse is kind."] * 40 + ["She reads.", "He reads."] * 40
    answers = ["Her nurse is kind.", "Her nurse is kind."] * 40 + ["She reads.", "He reads."] * 40

    (nurse,) = gender_bias(prompts, answers, read_word_lists())["professions"]

    assert nurse["prompts"]["log_odds"] == 0.0
    assert nurse["amplified"]["low"] > 0


def test_gendered_words_far_away_do_not_count() -> None:
    far = "The nurse came. " + "word " * 40 + "She left."

    (nurse,) = gender_bias([far], [""], read_word_lists())["professions"]

    assert (nurse["prompts"]["rows"], nurse["prompts"]["female"]) == (1, 0)


def test_word_lists_that_lack_a_part_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.toml"
    path.write_text('female = ["she"]\n')

    with pytest.raises(UsageError, match="word lists are TOML with"):
        read_word_lists(path)
