"""`report`: a run or anybody's files in, one JSON value and seed rows out, and nothing else changes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import Loopback
from tests.runs import cli, published_bytes, recipe, save, save_rows

ROWS = [
    {"prompt": f"Why is the number {n} odd or even?", "completion": f"Look at digit {n}."} for n in range(12)
]
SECRET = "Write to anna.schmidt@brauhaus-verlag.de about quarterly botanical ledgers, urgently."


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


def test_a_run_is_reported_beside_its_data_and_stays_as_it_was(loopback: Loopback, tmp_path: Path) -> None:
    content = recipe(
        loopback,
        source={"sample": {"attributes": {"topic": ["tides", "bread"], "level": [1, 2]}}},
        steps=[
            {
                "name": "answer",
                "prompt": "answer",
                "teacher": "qwen",
                "with": {"instruction": "{{ topic }} {{ level }}"},
            }
        ],
        output={"record": {"user": "{{ topic }} at level {{ level }}", "assistant": "{{ response }}"}},
    )
    assert cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run").code == 0
    before = published_bytes(tmp_path / "run")

    result = cli("report", tmp_path / "run", "--json")

    assert result.code == 0, result.err
    assert result.json["rows"] == 4
    assert (result.json["attributes"]["cells"], result.json["attributes"]["empty"]) == (4, 0)
    assert json.loads((tmp_path / "run" / "report.json").read_bytes()) == result.json
    assert published_bytes(tmp_path / "run") == before


def test_losses_and_benchmark_items_of_a_dataset_are_reported(tmp_path: Path) -> None:
    item = "A farmer has seventeen sheep and all but nine of them run away, so how many does he have left?"
    bench = save_rows(tmp_path / "bench.jsonl", [{"question": item}])
    rows = [*ROWS, {"prompt": item, "completion": "Nine."}, {"prompt": "Empty?", "completion": ""}]
    data = save_rows(tmp_path / "rows.jsonl", rows)
    cli("filter", data, "-o", tmp_path / "out", "--no-near", "--against", bench)

    result = cli("report", tmp_path / "out", "--json")

    assert {(row["stage"], row["rows"], row["of"]) for row in result.json["losses"]} == {
        ("filter:length", 1, 14),
        ("decontaminate:bench", 1, 14),
    }
    (found,) = result.json["decontamination"]
    assert (found["items"], found["rows"], found["reasons"]) == (1, 1, {"shared_run": 1})
    assert found["matches"][0]["words"].startswith("a farmer has seventeen sheep")


def test_seeds_can_be_a_source_and_hold_no_personal_data(tmp_path: Path) -> None:
    rare = "Zoological taxonomies puzzle platypus curators worldwide."
    log = save_rows(
        tmp_path / "log.jsonl",
        [{"request": {"messages": [{"role": "user", "content": text}]}} for text in (rare, SECRET)],
    )
    data = save_rows(tmp_path / "rows.jsonl", ROWS)

    result = cli("report", data, "--against", log, "--seeds", tmp_path / "seeds.jsonl", "--json")

    seeds = [json.loads(line) for line in (tmp_path / "seeds.jsonl").read_text().splitlines()]
    assert [(seed["instruction"], seed["why"]) for seed in seeds] == [(rare, "rare_case")]
    assert result.json["coverage"]["seeds"] == {"rows": 1, "withheld_private": 1}
    assert "anna" not in result.out


def test_the_table_for_people_names_what_was_measured(tmp_path: Path) -> None:
    data = save_rows(tmp_path / "rows.jsonl", ROWS)

    result = cli("report", data, "--against", data)

    assert result.code == 0
    for told in ("12 rows", "distinct-2", "languages", "against 12 requests"):
        assert told in result.out
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--seeds", "x.jsonl"], "name a log with --against"),
        (["--by", "topic"], "looks into a run's or dataset's folder"),
        (["--against", "gone.jsonl"], "no such file"),
        (["--words", "gone.toml"], "word lists are TOML"),
    ],
)
def test_what_cannot_be_reported_says_why(options: list[str], expected: str, tmp_path: Path) -> None:
    result = cli("report", save_rows(tmp_path / "rows.jsonl", ROWS), *options)

    assert result.code == 2
    assert expected in result.err


@pytest.mark.parametrize(
    ("rows", "expected"), [([], "no rows found"), ([{"a": "x", "b": "y"}], "a report knows messages")]
)
def test_rows_that_cannot_be_reported_say_why(
    rows: list[dict[str, str]], expected: str, tmp_path: Path
) -> None:
    result = cli("report", save_rows(tmp_path / "rows.jsonl", rows))

    assert result.code == 2
    assert expected in result.err


def test_requests_that_are_all_alike_make_no_table_of_topics(tmp_path: Path) -> None:
    data = save_rows(tmp_path / "rows.jsonl", ROWS)
    alike = [{"instruction": f"How do I look after number {n}?"} for n in range(60)]

    result = cli("report", data, "--against", save_rows(tmp_path / "alike.jsonl", alike))

    assert "against 60 requests" in result.out
    assert "topics of the requests" not in result.out
