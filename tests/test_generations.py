"""Rounds of distillation behind a row: counted per row, told in card, manifest, report and `show`."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.described import made, rows_file
from tests.loopback import Loopback
from tests.runs import cli, recipe, records, save, save_rows, teacher

DISTILLED = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


def generations(folder: Path) -> set[object]:
    return {row["generation"] for row in records(folder)}


def test_a_teacher_that_learned_from_peoples_texts_writes_generation_one(tmp_path: Path) -> None:
    out = made(tmp_path / "out", rows_file(tmp_path / "in.jsonl"), row_license="own")

    assert generations(out) == {1}
    assert "Each round loses" not in (out / "README.md").read_text()


def test_a_teacher_that_is_itself_a_student_writes_generation_two(tmp_path: Path) -> None:
    source = rows_file(tmp_path / "in.jsonl")

    out = made(tmp_path / "out", source, row_license="own", origin=f"{DISTILLED}@self-hosted")

    assert generations(out) == {2}
    card = (out / "README.md").read_text()
    assert "Each round loses some of what the first teacher knew" in card
    assert "| 2 | 30 |" in card
    assert "Warning: deepseek-ai/DeepSeek-R1-Distill-Qwen-7B: rows of generation 2" in card


def test_a_row_keeps_the_generation_it_says_it_has(tmp_path: Path) -> None:
    out = made(tmp_path / "out", rows_file(tmp_path / "in.jsonl", generation=3), row_license="own")

    assert generations(out) == {3}
    assert "| 3 | 30 |" in (out / "README.md").read_text()


def test_unevaluated_rows_keep_theirs_and_others_say_nothing(tmp_path: Path) -> None:
    known = made(tmp_path / "a", rows_file(tmp_path / "a.jsonl", generation=2), use=(), origin=None)
    unknown = made(tmp_path / "b", rows_file(tmp_path / "b.jsonl"), use=(), origin=None)

    assert generations(known) == {2}
    assert generations(unknown) == {None}


def test_answers_to_questions_a_dataset_of_generation_one_brought_are_generation_two(
    tmp_path: Path, server: Loopback
) -> None:
    rows = save_rows(
        tmp_path / "seed.jsonl",
        [{"instruction": f"What is subject {n} about?", "generation": 1} for n in range(3)],
    )
    file = save(tmp_path / "r.yaml", recipe(server, source={"jsonl": str(rows), "license": "own"}))

    result = cli("generate", file, "-o", tmp_path / "run", "--json")

    assert result.code == 0
    assert generations(tmp_path / "run") == {2}


def test_report_of_a_run_warns_of_a_teacher_that_is_a_student(tmp_path: Path, server: Loopback) -> None:
    student = teacher(server, hf=DISTILLED, model="r1-qwen")
    file = save(tmp_path / "r.yaml", recipe(server, teachers={"qwen": student}))

    result = cli("generate", file, "-o", tmp_path / "run", "--json")

    assert result.code == 0
    assert any("generation 2" in warning for warning in result.json["warnings"])
    assert generations(tmp_path / "run") == {2}
    assert cli("show", tmp_path / "run", "--json").json["generations"] == {"2": 5}


def test_a_rewritten_shard_still_tells_the_generation(tmp_path: Path) -> None:
    out = made(tmp_path / "out", rows_file(tmp_path / "in.jsonl", generation=2), row_license="own")
    copy = tmp_path / "copy.parquet"

    pl.read_parquet(out / "data/*.parquet").write_parquet(copy)

    again = made(tmp_path / "again", copy, row_license="own")
    assert generations(again) == {2}
