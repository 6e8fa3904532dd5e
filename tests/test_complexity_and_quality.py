"""DEITA's selection with judges: complexity of the question times quality of the answer, then what is varied."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import synthgen
from synthgen.assets import find_asset
from synthgen.refine import expected_scores
from synthgen.templates import load_prompt
from synthgen.types import Logprobs
from tests.judges import RUBRIC, between, classroom, judged, text_of, worth
from tests.loopback import Body, Loopback
from tests.runs import cli, records, save, save_rows

COMPLEXITY = "Rate how much the instruction below demands"
PRODUCT = "score:judge:complexity*judge@rubric_answer"
ROWS, SAMPLES, CHOSEN = 8, 2, 5


def demands(question: str) -> int:
    """1 to 4, by the number of the question."""
    return int(question.split()[-1].rstrip("?")) % 4 + 1


def reply(body: Body) -> str:
    text = text_of(body)
    if COMPLEXITY in text:
        return json.dumps({"reason": "So many steps.", "complexity": demands(between(text, "instruction"))})
    return classroom()(body)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=reply) as server:
        yield server


def rated(server: Loopback, **refine: Any) -> Any:
    judge = {
        "teacher": "one",
        "prompt": ["rubric_complexity", "rubric_answer"],
        "keep": ">= 1",
        "min_judges": 2,
    }
    return judged(server, judge, rows=ROWS, samples=SAMPLES, refine=refine)


def product_of(record: dict[str, Any]) -> int:
    question, answer = (turn["content"] for turn in record["messages"])
    return demands(question) * worth(answer)


def test_the_recipe_ranks_by_complexity_times_quality(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(rated(server, select={"n": CHOSEN, "by": PRODUCT}), tmp_path / "run")

    kept, left = records(tmp_path / "run"), records(tmp_path / "run", "rejected")
    assert (len(kept), len(left)) == (CHOSEN, ROWS * SAMPLES - CHOSEN)
    assert min(map(product_of, kept)) >= max(map(product_of, left))
    assert {record["id"]: record["score"] for record in left} == {
        record["id"]: product_of(record) for record in left
    }


def test_all_samples_of_a_question_share_one_rating_of_it(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(rated(server), tmp_path / "run")

    asked = [text_of(seen.body) for seen in server.requests]
    assert sum(COMPLEXITY in text for text in asked) == ROWS
    assert sum(RUBRIC in text for text in asked) == ROWS * SAMPLES
    assert len(records(tmp_path / "run")) == ROWS * SAMPLES


def test_the_best_by_the_product_are_thinned_out_by_diversity_without_asking(
    server: Loopback, tmp_path: Path
) -> None:
    synthgen.generate(rated(server), tmp_path / "run")
    asked = len(server.requests)

    best = cli("filter", tmp_path / "run", "-o", tmp_path / "best", "--select", 8, "--by", PRODUCT)
    varied = cli(
        "filter", tmp_path / "best", "-o", tmp_path / "varied", "--chain", "none", "--no-near", "--select", 3
    )

    assert (best.code, varied.code) == (0, 0), best.err + varied.err
    assert {row["id"] for row in records(tmp_path / "varied")} <= {
        row["id"] for row in records(tmp_path / "best")
    }
    assert len(records(tmp_path / "varied")) == 3
    assert len(server.requests) == asked


def test_columns_of_anybodys_rows_can_be_multiplied(tmp_path: Path) -> None:
    scores = [(1, 9), (4, 4), (5, 2), (3, None), (2, 6)]
    rows = [
        {"id": f"r{n}", "prompt": f"Question {n}?", "completion": f"Answer {n}.", "hard": hard, "good": good}
        for n, (hard, good) in enumerate(scores)
    ]
    options = ["--chain", "none", "--no-near", "--select", 2, "--by", "score:hard*good"]

    result = cli("filter", save_rows(tmp_path / "d.jsonl", rows), "-o", tmp_path / "out", *options)

    assert result.code == 0, result.err
    assert [row["id"] for row in records(tmp_path / "out")] == ["r1", "r4"]
    assert {row["id"]: row["score"] for row in records(tmp_path / "out", "rejected")} == {
        "r0": 9.0,
        "r2": 10.0,
        "r3": None,
    }


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("score:judge:complexty*judge", "did you mean 'judge:complexity'?"),
        ("score:judge:complexity*", "score:A*B is the product of two"),
    ],
)
def test_a_factor_that_cannot_be_is_an_error_at_its_line(
    by: str, expected: str, server: Loopback, tmp_path: Path
) -> None:
    result = cli("plan", save(tmp_path / "r.yaml", rated(server, select={"n": 2, "by": by})))

    assert (result.code, expected in result.err) == (2, True), result.err


def test_the_expected_complexity_is_read_from_the_score_tokens() -> None:
    prompt = load_prompt(find_asset("prompts", "rubric_complexity"))
    tokens = ('{"reason": "Steps.", "complexity": ', "3", "}")
    half = math.log(0.5)
    said = Logprobs(
        tokens=tokens,
        token_bytes=(None,) * 3,
        ids=(None,) * 3,
        logprobs=(0.0, half, 0.0),
        top_tokens=((tokens[0],), ("3", "4"), ("}",)),
        top_ids=((None,), (None, None), (None,)),
        top_logprobs=((0.0,), (half, half), (0.0,)),
    )

    assert expected_scores({"complexity": 3.0}, *prompt.score_range(), said) == {
        "complexity": pytest.approx(3.5)
    }
