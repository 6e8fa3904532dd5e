"""A filter that compares answers with something says how many it compared, and warns where those are none."""

import json
from pathlib import Path

import polars as pl
import pytest

from synthgen.dataset import detect_shape, open_inputs
from synthgen.pipeline.together import whole_groups
from synthgen.refine.filters.fields import field_values
from tests.loopback import Loopback
from tests.runs import cli, recipe, records, save, save_rows


def chain(folder: Path, steps: str) -> Path:
    (folder / "c.yaml").write_text(f"name: c\nversion: 1\nsteps:\n{steps}")
    return folder / "c.yaml"


def sums(folder: Path, column: str) -> Path:
    rows = [
        {"problem_id": n, "prompt": f"What is {n} + {n}?", "completion": f"It is\n#### {2 * n}", column: said}
        for n, said in enumerate(["0", ["2"], {"value": "4"}, None, "1"])
    ]
    return save_rows(folder / "rows.jsonl", rows)


def test_a_step_that_checks_nothing_warns_with_the_fields_there_are(tmp_path: Path) -> None:
    result = cli("filter", sums(tmp_path, "solution"), "-o", tmp_path / "o", "--chain", "math", "--no-near")

    assert result.code == 0
    first, second = result.err.strip().splitlines()
    assert first.startswith(
        "warning: step consistency checked none of 5 rows: nothing says which are samples"
    )
    assert second.startswith("warning: step math_answer checked none of 5 rows: none has the field 'answer'")
    assert "there are: problem_id, solution" in second
    assert "`- math_answer: {reference: FIELD}`" in second
    assert "checked by math_answer  0" in result.out


@pytest.mark.parametrize(("step", "field"), [("code_tests", "tests"), ("grounded", "document")])
def test_every_filter_that_needs_a_field_says_which(step: str, field: str, tmp_path: Path) -> None:
    steps = chain(tmp_path, f"  - {step}\n")

    result = cli("filter", sums(tmp_path, "solution"), "--chain", steps, "--dry-run", "9", "--json")

    assert result.json["checked"] == {step: 0}
    assert f"none has the field '{field}'" in result.json["warnings"][0]


def test_rows_that_were_checked_are_counted_in_the_manifest(tmp_path: Path) -> None:
    steps = chain(tmp_path, "  - math_answer: {reference: solution}\n")

    result = cli("filter", sums(tmp_path, "solution"), "-o", tmp_path / "o", "--chain", steps, "--json")

    assert result.err == ""
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["checked"] == {"math_answer": 4}
    said = [(row["reason"], row["detail"]) for row in records(tmp_path / "o", "rejected")]
    assert said == [
        ("math_unparsed", "the reference is neither a text nor a number, nor a list of one"),
        ("math_wrong", None),
    ]


def test_a_reference_may_lie_within_a_field() -> None:
    rows = [
        {"reward_model": {"ground_truth": "3"}},
        {"reward_model.ground_truth": 4},
        {"reward_model": "5"},
        {},
    ]
    frame = pl.DataFrame({"fields": [json.dumps(row) for row in rows]})

    assert field_values(frame, "reward_model.ground_truth") == ["3", 4, None, None]


def test_samples_of_a_question_are_compared_in_any_data(tmp_path: Path) -> None:
    rows = [
        {"prompt": "1 + 1?", "completion": f"{'So. ' * n}\n#### {said}", "question": question}
        for n, (question, said) in enumerate([(7, 2), (7, 2), (7, 3), (8, 5), (None, 1)])
    ]
    steps = chain(tmp_path, "  - consistency: {group: question}\n")

    result = cli(
        "filter", save_rows(tmp_path / "r.jsonl", rows), "--chain", steps, "--dry-run", "9", "--json"
    )

    assert result.json["checked"] == {"consistency": 3}
    assert result.json["reasons"] == {"filter:consistency/inconsistent": 1}


def test_a_question_is_not_cut_in_two_by_a_batch(tmp_path: Path) -> None:
    rows = [{"prompt": "?", "completion": str(n), "question": n // 5} for n in range(12)]
    path = save_rows(tmp_path / "r.jsonl", rows)
    batches = open_inputs([path], detect_shape([path]), batch_rows=4)

    cut = [
        [json.loads(text)["question"] for text in batch.fields] for batch in whole_groups(batches, "question")
    ]

    assert [values for values in cut if values] == [[0] * 5, [1] * 5, [2] * 2]


def test_a_run_says_it_too(tmp_path: Path) -> None:
    steps = chain(tmp_path, "  - code_tests\n")
    with Loopback() as server:
        content = recipe(server, rows=2, refine={"chain": str(steps)})
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "o", "--json")

    assert result.json["checked"] == {"code_tests": 0}
    assert any("step code_tests checked none of 2 rows" in line for line in result.json["warnings"])
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["checked"] == {"code_tests": 0}
