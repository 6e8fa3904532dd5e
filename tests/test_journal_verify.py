"""`synthgen journal verify`: damage, double payments, sends that may have been paid, and their money."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from synthgen.cli import app
from synthgen.errors import RunLocked, StorageError
from synthgen.journal import lock_run
from synthgen.journal.contents import index_path, raw_path, sealed_path
from synthgen.journal.lines import encode
from synthgen.journal.sealed import read_index, write_index
from synthgen.journal.sealing import seal
from synthgen.journal.verify import DoublePayment, PossiblyPaid, verify
from tests.test_journal import answer, ended, failure, intent, key, unusable, write_lines


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose journal has two segments, the first of them sealed."""
    folder = tmp_path / "run" / "journal"
    first = [entry for number in range(5) for entry in (intent(number), answer(number))]
    write_lines(folder, *first, failure(5))
    raw_path(folder, 2).write_bytes(b"".join(map(encode, [intent(6), answer(6), intent(7)])))
    seal(folder, 1)
    return folder.parent


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_an_intact_journal_is_counted_and_has_no_damage(run: Path) -> None:
    found = verify(run / "journal")

    assert (found.damaged, found.entries, found.paid_usd) == ([], {"I": 7, "R": 6, "F": 1}, 1.5)
    assert [(segment.name, segment.form, segment.entries) for segment in found.segments] == [
        ("000001.jsonl.zst", "sealed", 11),
        ("000002.jsonl", "raw", 3),
    ]


def test_a_key_with_several_answers_is_a_double_payment(tmp_path: Path) -> None:
    write_lines(tmp_path, answer(1), answer(2, 0.5), answer(2, 0.25), answer(3), answer(2, 0.125))

    found = verify(tmp_path)

    assert found.double_payments == [DoublePayment(key(2), 3, 0.375)]
    assert found.as_json()["double_payments_usd"] == 0.375


def test_a_double_payment_across_segments_is_found(run: Path) -> None:
    with raw_path(run / "journal", 2).open("ab") as file:
        file.write(encode(answer(0, 0.75)))

    assert verify(run / "journal").double_payments == [DoublePayment(key(0), 2, 0.75)]


def test_sends_without_a_reply_are_listed_with_money_and_whether_they_were_answered_since(
    tmp_path: Path,
) -> None:
    write_lines(
        tmp_path,
        intent(1, 0.25),
        intent(2),
        ended(2, lost=True),
        intent(2),
        answer(2),
        intent(3),
        unusable(3),
    )

    found = verify(tmp_path)

    assert found.possibly_paid == [
        PossiblyPaid(key(2), "reset", 0.5, answered=True),
        PossiblyPaid(key(1), "no_reply", 0.25, answered=False),
    ]
    assert (found.possibly_paid_usd, found.unusable_usd) == (0.75, 0.5)


def test_a_damaged_line_is_found(run: Path) -> None:
    flip(raw_path(run / "journal", 2), 40)

    assert verify(run / "journal").damaged == [
        f"000002.jsonl at byte 0: {len(encode(intent(6)))} damaged bytes skipped"
    ]


def test_a_damaged_frame_is_found_and_its_money_is_still_known(run: Path) -> None:
    flip(sealed_path(run / "journal", 1), 60)
    found = verify(run / "journal")

    assert len(found.damaged) == 1
    assert found.damaged[0].startswith("000001.jsonl at byte 0: ")
    assert found.paid_usd == 1.5


def test_a_damaged_index_is_found(run: Path) -> None:
    flip(index_path(run / "journal", 1), 60)

    assert verify(run / "journal").damaged == [
        "000001.idx: is missing or damaged; the next run builds it again"
    ]


def test_an_index_that_says_something_else_than_its_segment_is_found(run: Path) -> None:
    path = index_path(run / "journal", 1)
    index = read_index(path, 1)
    assert index is not None
    index.account.ledger.lost_usd += 1.0
    write_index(path, index)

    assert verify(run / "journal").damaged == [
        "000001.idx: is not the index of its segment; remove it and run again"
    ]


def test_a_torn_tail_is_no_damage(run: Path) -> None:
    path = raw_path(run / "journal", 2)
    os.truncate(path, path.stat().st_size - 5)

    found = verify(run / "journal")

    assert (found.damaged, found.torn_tail_bytes) == ([], len(encode(intent(7))) - 5)


# The command


def test_the_command_prints_tables_and_ends_with_0_for_an_intact_journal(run: Path) -> None:
    result = CliRunner().invoke(app, ["journal", "verify", str(run)])

    assert (result.exit_code, result.exception) == (0, None)
    assert "intact: every line, every index" in result.stdout
    assert f"{key(7)}  no_reply  0.500000 USD" in result.stdout


def test_the_command_says_it_all_as_json(run: Path) -> None:
    result = CliRunner().invoke(app, ["journal", "verify", str(run), "--json"])
    said = json.loads(result.stdout)

    assert (said["intact"], said["damaged"], said["double_payments"]) == (True, [], [])
    assert said["possibly_paid"] == [{"key": key(7), "reason": "no_reply", "usd": 0.5, "answered": False}]


def test_the_command_ends_as_a_storage_error_on_damage_after_saying_what_it_found(run: Path) -> None:
    flip(raw_path(run / "journal", 2), 40)
    result = CliRunner().invoke(app, ["journal", "verify", str(run), "--json"])

    assert isinstance(result.exception, StorageError)
    assert result.exception.exit_code == 6
    assert json.loads(result.stdout)["intact"] is False


def test_a_run_somebody_works_on_is_left_alone(run: Path) -> None:
    release = lock_run(run / "journal")
    try:
        result = CliRunner().invoke(app, ["journal", "verify", str(run)])
    finally:
        release()

    assert isinstance(result.exception, RunLocked)
