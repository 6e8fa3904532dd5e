"""A run whose replies are mostly lost ends with 0 all the same: then its summary says so, and which verb shows why."""

from pathlib import Path

import synthgen
from synthgen.api import Report
from tests.loopback import Body, Loopback, refuse
from tests.runs import questions, recipe


def run(folder: Path, server: Loopback, **changes: object) -> Report:
    """Eight rows."""
    return synthgen.generate(recipe(server, 8, **changes), folder / "run")


def refused_below(most: int, body: Body) -> object:
    """Refuses the questions numbered below `most`."""
    return refuse(400) if any(f"number {n}?" in str(body) for n in range(most)) else None


def test_over_half_failed_is_said_with_the_verb_that_shows_why(tmp_path: Path) -> None:
    with Loopback(script=lambda _number, body: refused_below(5, body)) as server:  # type: ignore[arg-type, return-value]  # acts or None
        report = run(tmp_path, server)

    [warning] = report.warnings
    failed = report.examples["ask/invalid"].partition(":")[0]
    assert report.exit_code == 0
    assert warning == (
        "5 of 8 candidates are lost for their replies, most of them (5) as ask/invalid; "
        f"see why with `synthgen show {tmp_path / 'run'} --row {failed}`"
    )
    assert synthgen.show(tmp_path / "run", row=failed).outcome == "failed"  # type: ignore[union-attr]


def test_half_is_not_over_half(tmp_path: Path) -> None:
    with Loopback(script=lambda _number, body: refused_below(4, body)) as server:  # type: ignore[arg-type, return-value]  # acts or None
        report = run(tmp_path, server)

    assert (report.counts["failed"], report.warnings) == (4, ())


def test_a_step_that_cannot_be_read_is_said_with_a_row_that_shows_it(tmp_path: Path) -> None:
    documents = [{"document": question["instruction"]} for question in questions(8)]
    steps = [{"name": "read", "prompt": "document_qa", "teacher": "qwen"}]
    with Loopback(reply=lambda _body: "no sections") as server:
        report = run(tmp_path, server, source={"inline": documents}, steps=steps)

    [warning] = report.warnings
    [(reason, example)] = report.examples.items()
    unread = example.partition(":")[0]
    assert reason.startswith("parse/")
    assert "step read: 8 of 8 replies of qwen could not be read" in warning
    assert f"(most: {reason})" in warning
    assert f" --row {unread[:12]}`" in warning
    assert "no sections" in str(synthgen.show(tmp_path / "run", row=unread))
