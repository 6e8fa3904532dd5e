"""Answers from a text: how many of a labelled set are found, and what counts as given."""

import json
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from synthgen.plugins import load_plugin
from synthgen.refine import Verdicts, load_chain, run_chain, view_of
from synthgen.refine.filters.number_words import number_words

ROOT = Path(__file__).parents[1]
TOWER = "The tower in Paris has three floors and seventeen lifts. Karl Lind built it in 1889 for 2,500 marks."


def lines(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (ROOT / path).read_text(encoding="utf-8").splitlines()]


def judge(name: str, answers: list[str], document: object = TOWER, **params: object) -> Verdicts:
    plugin = load_plugin("filter", name)
    rows = [
        {"id": str(place), "prompt": "What of it?", "completion": answer, "fields": json.dumps({"document": document})}
        for place, answer in enumerate(answers)
    ]  # fmt: skip
    verdicts = plugin.run(view_of(pl.DataFrame(rows)), plugin.params.model_validate(params))
    assert isinstance(verdicts, Verdicts)
    return verdicts


@cache
def labelled(name: str = "grounding") -> dict[str, tuple[int, int, int]]:
    """Label -> rows, rejected, flagged by the chain `grounded`."""
    documents = {row["id"]: row["document"] for row in lines("examples/documents.jsonl")}
    rows = [
        {
            **row,
            "id": str(place),
            "fields": json.dumps({"document": documents.get(row["document"], row["document"])}),
        }
        for place, row in enumerate(lines(f"tests/data/{name}.jsonl"))
    ]
    judged = run_chain(load_chain("grounded"), pl.DataFrame(rows))
    told = judged.with_columns(label=pl.Series([row["label"] for row in rows]))
    return {
        str(label): (
            part.height,
            part["reason"].drop_nulls().len(),
            part["flags"].list.contains("supported:unsupported").sum(),
        )
        for (label,), part in told.group_by("label")
    }


def test_right_paraphrases_are_kept() -> None:
    rows, rejected, flagged = labelled()["right"]

    assert (rows, rejected) == (25, 0)
    assert flagged <= 1


def test_wrong_facts_are_rejected() -> None:
    assert labelled()["facts"] == (21, 21, 0)


def test_invented_sentences_are_flagged() -> None:
    assert labelled()["invented"] == (8, 0, 8)


def test_the_opposite_in_the_same_words_is_left_to_a_judge() -> None:
    assert labelled()["subtle"] == (6, 0, 0)


def test_a_set_written_after_the_filters_is_told_apart_as_well() -> None:
    later = labelled("grounding_later")

    assert later == {"right": (15, 0, 0), "facts": (11, 11, 0), "invented": (5, 0, 5)}


def test_numbers_and_words_for_numbers_stand_for_each_other() -> None:
    said = [
        "It has 17 lifts.",
        "It has seventeen lifts.",
        "It has eighteen lifts.",
        "It cost two thousand five hundred marks.",
    ]

    assert judge("grounded", said).reason.to_list() == [None, None, "ungrounded", None]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("two ways, one end", {}),
        ("twenty-one or forty two", {"twenty-one": 21, "forty": 40}),
        ("three hundred and five", {"three hundred and five": 305}),
        ("a million", {"a million": 1_000_000}),
        ("siebzehn, dix-sept, diecisiete, einundzwanzig", {"siebzehn": 17, "dix-sept": 17, "diecisiete": 17, "einundzwanzig": 21}),
        ("often, nineties, tenant, seven-seater", {}),
        ("once upon a time", {}),
    ],
)  # fmt: skip
def test_words_for_numbers_are_read(text: str, found: dict[str, int]) -> None:
    assert number_words(text) == found


def test_a_name_of_one_word_counts_within_a_sentence() -> None:
    said = [
        "It stands in Berlin.",
        "It stands in Paris.",
        "A French tower, which Lind's firm built.",
        "Parisians like it.",
    ]

    assert judge("grounded", said).reason.to_list() == ["ungrounded", None, None, None]
    assert judge(
        "grounded", ["Der Turm ist ein Werk der Technik und der Stolz von Paris."]
    ).score.to_list() == [None]  # type: ignore[union-attr]


def test_a_document_may_be_a_list_of_passages() -> None:
    verdicts = judge("grounded", ["In 1889.", "In 1890."], document=["The tower.", "It is of 1889."])

    assert verdicts.reason.to_list() == [None, "ungrounded"]


def test_what_cannot_be_compared_has_no_score() -> None:
    said = [
        "Der Turm ist von einem Mann aus der Stadt gebaut worden.",
        "塔は十九世紀に建てられました。",
        "Yes.",
    ]

    assert judge("supported", said).score.to_list() == [None, None, None]  # type: ignore[union-attr]
