"""The journal: what survives a crash, damage, a full disk and a second process; sums that stay the same."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synthgen.errors import RunLocked, StorageError, UsageError
from synthgen.journal import (
    Circumstances,
    Entry,
    Journal,
    JournalIndex,
    answer_entry,
    failure_entry,
    lock_run,
)
from synthgen.journal import read_reply as read
from synthgen.journal.index import segment_paths
from synthgen.journal.lines import encode
from synthgen.types import Completion, JSONValue, ToolCall, Usage

AT = Circumstances("answer", "big", "127.0.0.1:1", 1, 1700000000.0, 0.25)


def key(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=16).hexdigest()


def intent(number: int, usd: float = 0.5) -> Entry:
    return {"k": key(number), "t": "I", "usd": usd}


def answer(number: int, usd: float | None = 0.25, text: str = "Blue.") -> Entry:
    completion = Completion(
        text, "stop", usage=Usage(100, 10, 20, 5), served_model="m", reply_id=f"r{number}"
    )
    return answer_entry(key(number), completion, usd, AT)


def failure(number: int) -> Entry:
    return failure_entry(key(number), "context", "too long", AT)


def ended(number: int, *, lost: bool) -> Entry:
    return {"k": key(number), "t": "A", "reason": "reset", "lost": lost, "usd": 0.5 if lost else 0.0}


def unusable(number: int) -> Entry:
    return {"k": key(number), "t": "X", "reason": "bad_body", "usd": 0.5, "body": "{"}


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Journal]:
    journal = Journal(folder)
    try:
        yield journal
    finally:
        await journal.close()


def write_lines(folder: Path, *entries: Entry) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "000001.jsonl"
    path.write_bytes(b"".join(map(encode, entries)))
    return path


def sums(index: JournalIndex) -> dict[str, object]:
    return asdict(index.ledger)


# Recovery


async def test_a_reply_reads_back_as_it_was_written(tmp_path: Path) -> None:
    completion = Completion(
        'Grüße \U0001f600 \n "x"',
        "tool_calls",
        reasoning="because",
        tool_calls=(ToolCall("c1", "look", '{"a": 1}'),),
        usage=Usage(1, 0, 2, 3),
        served_model="m-1",
        upstream="host",
        reply_id="r",
    )
    async with opened(tmp_path) as journal:
        await journal.commit(answer_entry(key(1), completion, 0.1, AT))

    stored = JournalIndex(tmp_path).reply(key(1))

    assert stored is not None
    assert (read(stored).completion, read(stored).cost_usd, read(stored).at) == (completion, 0.1, AT)


async def test_a_tail_torn_at_any_byte_of_the_last_two_entries_keeps_all_earlier_ones(tmp_path: Path) -> None:
    entries = [answer(number, text="x" * number) for number in range(6)]
    path = write_lines(tmp_path, *entries)
    whole = path.read_bytes()
    ends = [0]
    for entry in entries:
        ends.append(ends[-1] + len(encode(entry)))

    for cut in range(ends[4], ends[6]):
        path.write_bytes(whole[:cut])
        async with opened(tmp_path) as journal:
            await journal.commit(answer(9))
        index = JournalIndex(tmp_path)
        kept = sum(end <= cut for end in ends[1:])

        assert [key(number) in index for number in range(6)] == [number < kept for number in range(6)]
        assert (key(9) in index, index.damaged) == (True, [])
        index.close()


@given(entry=st.integers(0, 5), where=st.integers(0, 10_000), bit=st.integers(0, 7))
@example(entry=2, where=-1, bit=0)  # the line break
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_is_reported_and_costs_only_its_own_entry(entry: int, where: int, bit: int) -> None:
    lines = [encode(answer(number)) for number in range(7)]  # the last one is never hit
    damaged = bytearray(lines[entry])
    damaged[where % len(damaged)] ^= 1 << bit
    with TemporaryDirectory() as folder:
        (Path(folder) / "000001.jsonl").write_bytes(
            b"".join([*lines[:entry], bytes(damaged), *lines[entry + 1 :]])
        )
        index = JournalIndex(Path(folder))
        found = {number for number in range(7) if key(number) in index}
        index.close()

    assert found >= set(range(7)) - {entry}
    assert bool(index.damaged) == (entry not in found)


def test_damage_names_file_and_place(tmp_path: Path) -> None:
    path = write_lines(tmp_path, answer(1), answer(2), answer(3))
    damaged = bytearray(path.read_bytes())
    first = len(encode(answer(1)))
    damaged[first + 60] ^= 1
    path.write_bytes(damaged)

    index = JournalIndex(tmp_path)

    assert index.damaged == [f"000001.jsonl at byte {first}: {len(encode(answer(2)))} damaged bytes skipped"]


async def test_a_damaged_last_line_is_reported_and_stays(tmp_path: Path) -> None:
    path = write_lines(tmp_path, answer(1), answer(2))
    damaged = path.read_bytes()[:-3] + b"?}\n"
    path.write_bytes(damaged)

    async with opened(tmp_path) as journal:
        reported = list(journal.index.damaged)
        await journal.commit(answer(3))

    assert len(reported) == 1
    assert path.read_bytes().startswith(damaged)


def test_an_unfinished_line_in_a_sealed_segment_is_damage(tmp_path: Path) -> None:
    path = write_lines(tmp_path, answer(1), answer(2))
    path.write_bytes(path.read_bytes()[:-5])
    (tmp_path / "000002.jsonl").write_bytes(encode(answer(3)))

    index = JournalIndex(tmp_path)

    assert len(index.damaged) == 1
    assert sorted(index.keys()) == sorted([key(1), key(3)])


async def test_opening_for_reading_changes_no_byte(tmp_path: Path) -> None:
    path = write_lines(tmp_path, answer(1), answer(2))
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)

    JournalIndex(tmp_path)

    assert path.read_bytes() == torn


# Committing


async def test_an_entry_is_visible_only_after_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    sync = os.fdatasync

    def slow_sync(file: int) -> None:
        gate.wait(10)
        sync(file)

    monkeypatch.setattr("synthgen.journal.writer.os.fdatasync", slow_sync)
    async with opened(tmp_path) as journal:
        commit = asyncio.ensure_future(journal.commit(answer(1)))
        await asyncio.sleep(0.02)
        before = journal.index.reply(key(1)), commit.done()
        gate.set()
        await commit
        after = journal.index.reply(key(1))

    assert before == (None, False)
    assert after == answer(1)


async def test_entries_that_arrive_while_the_disk_works_share_one_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0
    sync = os.fdatasync

    def counted(file: int) -> None:
        nonlocal syncs
        syncs += 1
        sync(file)

    monkeypatch.setattr("synthgen.journal.writer.os.fdatasync", counted)
    async with opened(tmp_path) as journal:
        await asyncio.gather(*(journal.commit(answer(number)) for number in range(500)))
        largest = journal.largest_commit

    assert syncs < 100
    assert largest > 5
    assert len(list(JournalIndex(tmp_path).keys())) == 500


async def test_appended_entries_are_durable_with_the_next_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        journal.append(ended(1, lost=True))
        await journal.commit(answer(2))

        assert [entry["t"] for entry in JournalIndex(tmp_path).entries()] == ["A", "R"]


async def test_appended_entries_are_written_on_close(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        journal.append(ended(1, lost=True))

    assert [entry["t"] for entry in JournalIndex(tmp_path).entries()] == ["A"]


async def test_a_cancelled_commit_is_written_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        commit = asyncio.ensure_future(journal.commit(answer(1)))
        await asyncio.sleep(0)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit

    assert key(1) in JournalIndex(tmp_path)


async def test_segments_rotate_and_all_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthgen.journal.writer.SEGMENT_BYTES", 1000)
    async with opened(tmp_path) as journal:
        for number in range(20):
            await journal.commit(answer(number))
        live = [journal.index.reply(key(number)) for number in range(20)]
    async with opened(tmp_path) as journal:
        reopened = [journal.index.reply(key(number)) for number in range(20)]

    assert len(segment_paths(tmp_path)) > 3
    assert live == reopened == [answer(number) for number in range(20)]


async def test_a_failed_request_can_be_made_askable_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.commit(failure(1), answer(2), failure(3), answer(3))
        forgotten = journal.index.forget_failures()

        assert forgotten == 1
        assert [key(number) in journal.index for number in (1, 2, 3)] == [False, True, True]


# One process


def test_a_second_process_is_refused_at_once_and_told_who_holds_the_run(tmp_path: Path) -> None:
    with lock_holder(tmp_path / "journal") as holder:
        started = time.monotonic()
        with pytest.raises(RunLocked, match=rf"process {holder.pid}\b"):
            lock_run(tmp_path / "journal")

        assert time.monotonic() - started < 1


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    with lock_holder(tmp_path / "journal") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()

        lock_run(tmp_path / "journal")()


def test_a_lock_given_back_can_be_taken_again(tmp_path: Path) -> None:
    lock_run(tmp_path)()

    lock_run(tmp_path)()


@pytest.mark.parametrize("where", ["mine", "mine/run"])
def test_a_lock_below_a_regular_file_is_a_usage_error(where: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")

    with pytest.raises(UsageError, match="mine: is a file, where a folder is to be"):
        lock_run(tmp_path / where / "journal")


class lock_holder:  # noqa: N801  # used as a with statement
    """A process that holds the lock of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.code = (
            "import sys\nfrom pathlib import Path\nfrom synthgen.journal import lock_run\n"
            f"lock_run(Path({str(folder)!r}))\nprint('held', flush=True)\nsys.stdin.read()"
        )

    def __enter__(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"
        return self.process

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.communicate()


# A full disk


class Disk:
    """`os.write` that fails with ENOSPC once `left` bytes are written; `None`: never."""

    def __init__(self) -> None:
        self.left: int | None = None
        self._write = os.write

    def write(self, file: int, rest: memoryview) -> int:
        if self.left is None:
            return self._write(file, rest)
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(file, rest[: self.left])
        self.left -= written
        return written


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr("synthgen.journal.writer.os.write", disk.write)
    return disk


async def test_a_full_disk_is_a_storage_error_that_says_what_to_do(tmp_path: Path, disk: Disk) -> None:
    async with opened(tmp_path) as journal:
        disk.left = 0
        with pytest.raises(
            StorageError, match=r"000001\.jsonl: cannot be written: No space left.*free the disk"
        ):
            await journal.commit(answer(1))


@pytest.mark.parametrize("room", [0, 1, 100, 300])
async def test_a_full_disk_loses_nothing_acknowledged_and_leaves_no_torn_line(
    tmp_path: Path, disk: Disk, room: int
) -> None:
    async with opened(tmp_path) as journal:
        await journal.commit(answer(1), answer(2))
        whole = (tmp_path / "000001.jsonl").read_bytes()
        disk.left = room
        with pytest.raises(StorageError):
            await journal.commit(answer(3), answer(4))

        assert (tmp_path / "000001.jsonl").read_bytes() == whole


async def test_answers_that_waited_are_written_on_close_when_there_is_space_again(
    tmp_path: Path, disk: Disk
) -> None:
    folder = tmp_path / "j"
    folder.mkdir()
    journal = Journal(folder)
    disk.left = 10
    for number in (1, 2):
        with pytest.raises(StorageError):
            await journal.commit(answer(number))
    disk.left = None
    lost = await journal.close()

    index = JournalIndex(folder)
    assert lost == 0
    assert (sorted(index.keys()), index.damaged) == (sorted([key(1), key(2)]), [])
    assert sums(index) == sums(journal.index)


async def test_answers_that_cannot_be_stored_are_counted(tmp_path: Path, disk: Disk) -> None:
    journal = Journal(tmp_path)
    disk.left = 10
    with pytest.raises(StorageError):
        await journal.commit(answer(1))
    with pytest.raises(StorageError):
        await journal.commit(intent(2))

    assert await journal.close() == 1


async def test_an_intent_refused_by_the_disk_never_becomes_a_lost_send(tmp_path: Path, disk: Disk) -> None:
    journal = Journal(tmp_path)
    disk.left = 0
    with pytest.raises(StorageError):
        await journal.commit(intent(1))
    disk.left = None
    await journal.close()

    assert JournalIndex(tmp_path).ledger.lost == 0


def fill_until_the_ballast_goes(disk: Disk, folder: Path) -> None:
    """A disk with no room but what the ballast takes."""
    write = disk._write

    def full(file: int, rest: memoryview) -> int:
        if (folder / "BALLAST").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, rest)

    disk.left, disk._write = 1 << 30, full


async def test_answers_under_way_are_stored_and_handed_out_when_the_disk_is_full(
    tmp_path: Path, disk: Disk
) -> None:
    async with opened(tmp_path) as journal:
        await journal.commit(intent(1), intent(2), intent(3))
        fill_until_the_ballast_goes(disk, tmp_path)
        await journal.commit(answer(1))
        await journal.commit(answer(2))
        journal.append(ended(3, lost=True))
        stored = journal.index.reply(key(2))
        failure = journal.failure

    assert stored == answer(2)
    assert failure is not None
    assert "No space left" in str(failure)
    assert [entry["t"] for entry in JournalIndex(tmp_path).entries()] == ["I", "I", "I", "R", "R", "A"]


async def test_nothing_is_issued_any_more_on_a_full_disk(tmp_path: Path, disk: Disk) -> None:
    async with opened(tmp_path) as journal:
        fill_until_the_ballast_goes(disk, tmp_path)
        waiting = [
            asyncio.ensure_future(journal.commit(entry)) for entry in (intent(1), answer(2), intent(3))
        ]
        ended_with = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(StorageError):
            await journal.commit(intent(4))
        with pytest.raises(StorageError):
            journal.append({"k": key(5), "t": "S", "fields": {}})

    assert [type(one) for one in ended_with] == [StorageError, type(None), StorageError]
    assert [entry["t"] for entry in JournalIndex(tmp_path).entries()] == ["R"]


async def test_the_ballast_is_there_during_a_session_only(tmp_path: Path) -> None:
    async with opened(tmp_path):
        during = (tmp_path / "BALLAST").stat().st_size

    assert during == 16 << 20
    assert not (tmp_path / "BALLAST").exists()


async def test_a_session_that_cannot_set_aside_its_ballast_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("synthgen.journal.ballast.os.posix_fallocate", full)
    with pytest.raises(StorageError, match=r"No space left on device \(a run sets 16 MiB aside"):
        Journal(tmp_path)

    assert list(tmp_path.iterdir()) == []


async def test_a_segment_that_cannot_be_opened_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synthgen.journal.writer.SEGMENT_BYTES", 1)
    async with opened(tmp_path) as journal:
        await journal.commit(answer(1))
        (tmp_path / "000002.jsonl").mkdir()
        with pytest.raises(StorageError):
            await asyncio.wait_for(journal.commit(answer(2)), 5)


# Sums


# Sessions of one run; the last one closes every send it opened.
HISTORIES: dict[str, Callable[[], list[list[Entry]]]] = {
    "answered": lambda: [[intent(1), answer(1)]],
    "answered after a crash": lambda: [[intent(1)], [intent(1), answer(1)]],
    "released after a crash": lambda: [[intent(1)], [intent(1), ended(1, lost=False)]],
    "lost, then answered": lambda: [[intent(1), ended(1, lost=True), intent(1), answer(1)]],
    "unusable, then answered": lambda: [[intent(1), unusable(1), intent(1), answer(1)]],
    "crashed, refused": lambda: [[intent(1)], [intent(1), ended(1, lost=False), failure(1)]],
    "crashed, given up": lambda: [[intent(1)], [intent(1), ended(1, lost=True), failure(1)]],
    "failed, asked again": lambda: [[intent(1), ended(1, lost=False), failure(1)], [intent(1), answer(1)]],
    "many": lambda: [
        [intent(n) for n in range(9)] + [answer(n) for n in range(6)] + [ended(6, lost=True)],
        [intent(7), answer(7), intent(8), ended(8, lost=False)],
    ],
}


@pytest.mark.parametrize("name", HISTORIES)
async def test_the_sums_are_the_same_after_reopening(tmp_path: Path, name: str) -> None:
    for session in HISTORIES[name]():
        async with opened(tmp_path) as journal:
            for entry in session:
                await journal.commit(entry)
            live = sums(journal.index)

    first, second = sums(JournalIndex(tmp_path)), sums(JournalIndex(tmp_path))

    assert live == first == second


def spent(folder: Path, *entries: Entry) -> tuple[int, float, float]:
    ledger = JournalIndex(write_lines(folder, *entries).parent).ledger
    return ledger.lost, ledger.lost_usd, ledger.spent_usd


def test_a_send_without_a_reply_is_lost_with_its_reservation(tmp_path: Path) -> None:
    assert spent(tmp_path, intent(1, 0.5), intent(2, 0.25)) == (2, 0.75, 0.75)


def test_an_attempt_that_was_not_paid_releases_its_reservation(tmp_path: Path) -> None:
    assert spent(tmp_path, intent(1), ended(1, lost=False)) == (0, 0.0, 0.0)


def test_a_lost_attempt_is_counted_once(tmp_path: Path) -> None:
    assert spent(tmp_path, intent(1), ended(1, lost=True)) == (1, 0.5, 0.5)


def test_an_answer_after_a_lost_first_attempt_counts_once(tmp_path: Path) -> None:
    assert spent(tmp_path, intent(1), intent(1), answer(1, 0.25)) == (1, 0.5, 0.75)


def test_a_failure_does_not_settle_an_earlier_lost_send(tmp_path: Path) -> None:
    assert spent(tmp_path, intent(1), intent(1), ended(1, lost=False), failure(1)) == (1, 0.5, 0.5)


def test_an_unusable_reply_costs_its_reservation(tmp_path: Path) -> None:
    assert spent(tmp_path, intent(1), unusable(1), intent(1), answer(1, 0.25)) == (0, 0.0, 0.75)


def test_tokens_and_money_add_up_per_step_and_teacher(tmp_path: Path) -> None:
    other: dict[str, JSONValue] = {**answer(3, usd=None), "step": "judge", "teacher": "small"}
    write_lines(tmp_path, answer(1), answer(2), other, failure(4))

    tallies = JournalIndex(tmp_path).ledger.tallies

    big, small = tallies["answer", "big"], tallies["judge", "small"]
    assert (big.requests, big.failed, big.input_tokens, big.cached_input_tokens) == (2, 1, 200, 20)
    assert (big.output_tokens, big.reasoning_tokens, big.cost_usd, big.unpriced) == (40, 10, 0.5, 0)
    assert (small.requests, small.cost_usd, small.unpriced) == (1, 0.0, 1)
