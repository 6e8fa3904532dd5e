"""The target: the first n acceptable records in plan order, no more asked than the acceptance so far calls for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import synthgen
from tests.loopback import Loopback
from tests.runs import cli, graded, questions, recipe, records, save

JUDGED = {"chain": "none", "judge": {"teacher": "qwen", "keep": ">= 3"}}
OUTCOMES = ("accepted", "rejected", "failed", "quarantined", "surplus", "pending")


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=graded) as running:
        yield running


def test_a_target_stops_at_its_record_in_plan_order(server: Loopback, tmp_path: Path) -> None:
    everything = recipe(server, rows=40, refine=JUDGED)
    synthgen.generate(everything, tmp_path / "all")

    report = synthgen.generate({**everything, "target": 9, "wave": 7}, tmp_path / "run")

    assert report.exit_code == 0
    assert [r["id"] for r in records(tmp_path / "run")] == [r["id"] for r in records(tmp_path / "all")][:9]
    assert report.counts["surplus"] > 0
    assert report.counts["planned"] == sum(report.counts[name] for name in OUTCOMES) < 40


def test_a_missed_target_publishes_what_there_is_and_exits_3(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server, rows=4, target=10))

    result = cli("generate", path, "-o", tmp_path / "run")

    assert result.code == 3
    assert "target missed: 4 of 10" in result.err
    assert len(records(tmp_path / "run")) == 4


def test_nothing_beyond_the_need_is_asked_where_everything_is_accepted(
    server: Loopback, tmp_path: Path
) -> None:
    report = synthgen.generate(recipe(server, rows=50, target=7), tmp_path / "run")

    assert (report.sent, report.counts["accepted"], report.counts["surplus"]) == (7, 7, 0)


def test_what_was_rejected_before_the_last_record_is_kept_and_what_lies_behind_it_is_surplus(
    server: Loopback, tmp_path: Path
) -> None:
    report = synthgen.generate(recipe(server, rows=40, target=9, refine=JUDGED), tmp_path / "run")

    order = [row["instruction"] for row in questions(40)]

    def place(row: dict[str, object]) -> int:
        messages = row["messages"]
        assert isinstance(messages, list)
        return order.index(messages[0]["content"])

    last = place(records(tmp_path / "run")[-1])
    rejected = records(tmp_path / "run", "rejected")
    assert max(map(place, rejected)) < last
    assert report.counts["accepted"] + report.counts["rejected"] == last + 1


def test_quarantined_answers_do_not_count_towards_the_target(tmp_path: Path) -> None:
    with Loopback(served_model="gpt-4o") as server:
        report = synthgen.generate(recipe(server, rows=6, target=2), tmp_path / "run")

    assert report.exit_code == 3
    assert report.counts["quarantined"] == 6


def test_surplus_becomes_records_when_the_target_is_raised(server: Loopback, tmp_path: Path) -> None:
    content = recipe(server, rows=40, refine=JUDGED)
    first = synthgen.generate({**content, "target": 9}, tmp_path / "run")
    again = synthgen.generate({**content, "target": 10}, tmp_path / "run")
    synthgen.generate({**content, "target": 10}, tmp_path / "fresh")

    assert first.counts["surplus"] > 0
    assert again.counts["accepted"] == 10
    assert records(tmp_path / "run") == records(tmp_path / "fresh")
