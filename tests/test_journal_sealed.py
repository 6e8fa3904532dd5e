"""Sealed segments: the same journal in less space and memory, whatever moment a sealing is killed at."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from synthgen.errors import StorageError
from synthgen.journal import Entry, Journal, JournalIndex
from synthgen.journal.contents import index_path, raw_path, sealed_path
from synthgen.journal.keys import KeyTable, SortedKeys
from synthgen.journal.lines import encode
from synthgen.journal.sealed import read_index, zstd
from synthgen.journal.sealing import seal
from synthgen.spool import Spool
from tests.test_journal import answer, ended, failure, intent, key, sums

ROOT = Path(__file__).resolve().parent.parent
PER_SEGMENT = 60
SEGMENTS = 3


def row(number: int) -> Entry:
    return {"k": key(1000 + number), "t": "S", "fields": {"n": number}}


def history(segment: int) -> list[Entry]:
    """Entries of one segment; sums that depend on the order, and sends that span segments."""
    entries: list[Entry] = []
    for number in range(segment * PER_SEGMENT, (segment + 1) * PER_SEGMENT):
        entries += [row(number), intent(number, 0.1), answer(number, usd=0.1 * number / 7, text="sea " * 300)]
    return [
        *entries,
        intent(9000 + segment, 0.3),
        ended(9000 + segment - 1, lost=False),
        failure(8000 + segment),
    ]


def write_raw(folder: Path) -> Path:
    """A journal as earlier versions wrote it: no segment sealed."""
    folder.mkdir(parents=True, exist_ok=True)
    for segment in range(SEGMENTS):
        raw_path(folder, segment + 1).write_bytes(b"".join(map(encode, history(segment))))
    return folder


def all_said(index: JournalIndex) -> dict[str, object]:
    """Everything a reader can learn."""
    try:
        return {
            "replies": [index.reply(key(number)) for number in range(SEGMENTS * PER_SEGMENT)],
            "rows": [index.row(key(1000 + number)) for number in range(SEGMENTS * PER_SEGMENT)],
            "failures": [index.reply(key(8000 + segment)) for segment in range(SEGMENTS)],
            "keys": sorted(index.keys()),
            "entries": list(index.entries()),
            "sums": sums(index),
            "summary": index.summary(),
            "damaged": index.damaged,
        }
    finally:
        index.close()


@asynccontextmanager
async def sealed_all(folder: Path) -> AsyncIterator[Journal]:
    """A session that has sealed what it could."""
    journal = Journal(folder)
    await asyncio.to_thread(journal._sealer.finish)
    assert journal._sealer.problem is None
    try:
        yield journal
    finally:
        await journal.close()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "journal")


@pytest.fixture
def sealed(raw: Path) -> Path:
    for number in range(1, SEGMENTS):
        seal(raw, number)
    return raw


def test_a_sealed_journal_says_the_same_to_the_last_bit(raw: Path) -> None:
    before = all_said(JournalIndex(raw))
    for number in range(1, SEGMENTS):
        seal(raw, number)

    assert all_said(JournalIndex(raw)) == before


async def test_a_journal_of_raw_segments_is_sealed_by_the_next_session(raw: Path) -> None:
    before = all_said(JournalIndex(raw))
    async with sealed_all(raw):
        pass

    names = sorted(path.name for path in raw.iterdir())
    assert names == ["000001.idx", "000001.jsonl.zst", "000002.idx", "000002.jsonl.zst", "000003.jsonl"]
    assert all_said(JournalIndex(raw)) == before


async def test_a_session_goes_on_with_the_sealed_form(raw: Path) -> None:
    before = all_said(JournalIndex(raw))
    async with sealed_all(raw) as journal:
        assert journal.index.is_sealed(1)
        assert [journal.index.reply(key(n)) for n in range(SEGMENTS * PER_SEGMENT)] == before["replies"]
        assert journal.index.summary() == before["summary"]


async def test_segments_are_sealed_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synthgen.journal.writer.SEGMENT_BYTES", 2000)
    async with sealed_all(tmp_path) as journal:
        for number in range(40):
            await journal.commit(answer(number))
    async with sealed_all(tmp_path):
        pass
    index = JournalIndex(tmp_path)

    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    assert [index.reply(key(number)) for number in range(40)] == [answer(number) for number in range(40)]
    index.close()


def test_the_compressed_file_is_the_segment_for_any_zstd(raw: Path) -> None:
    content = raw_path(raw, 1).read_bytes()
    seal(raw, 1)

    assert zstd.decompress(sealed_path(raw, 1).read_bytes()) == content
    assert sealed_path(raw, 1).stat().st_size < len(content) / 2


def test_opening_reads_no_line_of_a_sealed_segment(sealed: Path) -> None:
    before = JournalIndex(sealed)
    path = sealed_path(sealed, 1)
    path.write_bytes(bytes(path.stat().st_size))
    index = JournalIndex(sealed)

    assert (key(0) in index, index.damaged, sums(index)) == (True, [], sums(before))


# Keys


def test_an_answer_in_a_later_segment_replaces_a_sealed_failure(tmp_path: Path) -> None:
    raw_path(tmp_path, 1).write_bytes(encode(failure(1)) + encode(failure(2)))
    raw_path(tmp_path, 2).write_bytes(encode(answer(1)))
    raw_path(tmp_path, 3).write_bytes(encode(failure(3)))
    seal(tmp_path, 1)
    seal(tmp_path, 2)
    index = JournalIndex(tmp_path)

    assert index.reply(key(1)) == answer(1)
    assert index.forget_failures() == 2
    assert [key(number) in index for number in (1, 2, 3)] == [True, False, False]
    assert index.summary()["replies"] == 1
    index.close()


async def test_a_forgotten_sealed_failure_is_found_again_once_it_is_answered(sealed: Path) -> None:
    async with sealed_all(sealed) as journal:
        journal.index.forget_failures()
        await journal.commit(answer(8000))

        assert journal.index.reply(key(8000)) == answer(8000)
        assert journal.index.reply(key(8001)) is None


def test_keys_that_begin_alike_are_told_apart() -> None:
    alike = [bytes(8) + bytes([n]) * 8 for n in (3, 1, 2)]
    table = KeyTable.of(SortedKeys.of({one: place for place, one in enumerate(alike)}), 0, Spool())

    assert [table.find(one) for one in alike] == [0, 1, 2]
    assert table.find(bytes(8) + bytes([4]) * 8) is None


def test_an_index_without_keys_can_be_stored(tmp_path: Path) -> None:
    raw_path(tmp_path, 1).write_bytes(encode(intent(1)))
    raw_path(tmp_path, 2).write_bytes(encode(answer(1)))
    seal(tmp_path, 1)
    index = JournalIndex(tmp_path)

    assert (index.ledger.lost, list(index.keys())) == (0, [key(1)])


# Crashes


# Copies a journal for every step of sealing its segment 2, and dies there, in a process of its own.
KILL_EVERYWHERE = """
import os, shutil, signal, sys
from pathlib import Path
from synthgen.journal.sealing import seal

def die_at(left):
    def dying(real):
        def call(*arguments, **named):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            if left == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 2
            return result
        return call
    for name in ("open", "pread", "fsync", "replace", "rename", "unlink"):
        setattr(os, name, dying(getattr(os, name)))

base, step, status = Path(sys.argv[1]), 0, 1
while status:
    folder = base.with_name(str(step))
    shutil.copytree(base, folder)
    child = os.fork()
    if not child:
        die_at(step)
        seal(folder, 2)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    step += 1
print(step)
"""


async def test_a_sealing_killed_at_any_step_loses_nothing(tmp_path: Path) -> None:
    base = write_raw(tmp_path / "base")
    expected = all_said(JournalIndex(base))
    seal(base, 1)
    command = [sys.executable, "-c", KILL_EVERYWHERE, str(base)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    forms = set()
    for step in range(int(done.stdout)):
        folder = tmp_path / str(step)
        forms.add(tuple(sorted(path.name for path in folder.glob("000002*"))))
        assert all_said(JournalIndex(folder)) == expected, f"killed at step {step}"
        await resume(folder)
        assert sorted(path.name for path in folder.glob("000002*")) == ["000002.idx", "000002.jsonl.zst"]
        assert all_said(JournalIndex(folder)) == expected, f"killed at step {step}, after the next session"

    # The kills fell into every window: compressing, compressed, index being written, all there, raw segment gone.
    assert forms == {
        ("000002.jsonl", "000002.jsonl.zst.tmp"),
        ("000002.jsonl", "000002.jsonl.zst"),
        ("000002.idx.tmp", "000002.jsonl", "000002.jsonl.zst"),
        ("000002.idx", "000002.jsonl", "000002.jsonl.zst"),
        ("000002.idx", "000002.jsonl.zst"),
    }


async def resume(folder: Path) -> None:
    async with sealed_all(folder):
        pass


async def test_a_full_disk_ends_sealing_and_not_the_run(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_raw: bytes) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("synthgen.journal.sealing.compress", refuse)
    journal = Journal(raw)
    await journal.commit(answer(7000))
    await asyncio.to_thread(journal._sealer.finish)
    await journal.close()

    assert journal._sealer.problem is not None
    assert "No space left" in journal._sealer.problem
    assert sorted(path.name for path in raw.iterdir()) == ["000001.jsonl", "000002.jsonl", "000003.jsonl"]


def test_a_stopped_sealing_leaves_the_raw_segment_alone(raw: Path) -> None:
    with pytest.raises(InterruptedError):
        seal(raw, 1, stopped=lambda: True)

    assert [path.name for path in raw.glob("000001*")] == ["000001.jsonl"]


def test_a_compressed_file_that_reads_back_wrong_is_not_trusted(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synthgen.journal.sealing.compress", lambda piece: zstd.compress(piece[::-1]))
    with pytest.raises(StorageError, match="does not read back"):
        seal(raw, 1)

    assert [path.name for path in raw.glob("000001*")] == ["000001.jsonl"]


def test_a_reader_survives_a_sealing_by_another_process(raw: Path) -> None:
    index = JournalIndex(raw)
    expected = [index.reply(key(number)) for number in range(PER_SEGMENT)]
    fresh = JournalIndex(raw)
    seal(raw, 1)

    assert [fresh.reply(key(number)) for number in range(PER_SEGMENT)] == expected
    assert [index.reply(key(number)) for number in range(PER_SEGMENT)] == expected
    index.close()
    fresh.close()


# Damage


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("at", [0, 12, 200, -60, -1])
async def test_an_index_that_is_damaged_is_built_again(sealed: Path, at: int) -> None:
    expected = all_said(JournalIndex(sealed))
    flip(index_path(sealed, 2), at)
    read_only = all_said(JournalIndex(sealed))
    async with sealed_all(sealed):
        pass

    assert read_only == expected
    assert read_index(index_path(sealed, 2), 2) is not None
    assert all_said(JournalIndex(sealed)) == expected


def test_a_lost_index_is_built_again(sealed: Path) -> None:
    expected = all_said(JournalIndex(sealed))
    for number in (1, 2):
        index_path(sealed, number).unlink()

    assert all_said(JournalIndex(sealed)) == expected


def test_a_damaged_frame_is_a_storage_error_that_says_how_to_go_on(sealed: Path) -> None:
    flip(sealed_path(sealed, 1), 100)
    index = JournalIndex(sealed)

    with pytest.raises(StorageError, match=r"journal verify.*remove 000001\.idx"):
        index.reply(key(0))
    index.close()


@pytest.fixture
def small_frames(raw: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Segment 1 sealed in frames of one or two entries."""
    monkeypatch.setattr("synthgen.journal.sealing._FRAME_BYTES", 1000)
    for number in range(1, SEGMENTS):
        seal(raw, number)
    return raw


@pytest.mark.parametrize("within", [0, 2, 5, 9, 40])
def test_a_damaged_frame_costs_only_its_entries(small_frames: Path, within: int) -> None:
    index = read_index(index_path(small_frames, 1), 1)
    assert index is not None
    frames = index.frames
    hit = 20
    start, end = int(frames.raw_starts[hit]), int(frames.raw_starts[hit + 1])
    places = {one: place >> 1 for one, place in index.replies.items()}
    flip(sealed_path(small_frames, 1), int(frames.file_starts[hit]) + within)
    index_path(small_frames, 1).unlink()

    found = JournalIndex(small_frames)
    lost = {one for one in places if one.hex() not in found}

    assert lost == {one for one, place in places.items() if start <= place < end}
    assert all(found.reply(one.hex()) for one in places if one not in lost)
    assert len(found.damaged) >= 1
    found.close()


async def test_a_cut_sealed_file_keeps_what_is_left_and_all_of_the_money(small_frames: Path) -> None:
    money = sums(JournalIndex(small_frames))
    path = sealed_path(small_frames, 1)
    os.truncate(path, path.stat().st_size // 2)
    async with sealed_all(small_frames) as journal:
        reported = list(journal.index.damaged)
    index = JournalIndex(small_frames)

    assert len(reported) == 1
    assert index.damaged == reported
    assert (key(0) in index, key(PER_SEGMENT - 1) in index, key(PER_SEGMENT) in index) == (True, False, True)
    assert sums(index) == money
    index.close()


def test_a_missing_sealed_file_is_reported(sealed: Path) -> None:
    sealed_path(sealed, 1).unlink()
    index = JournalIndex(sealed)

    assert index.damaged == ["000001.jsonl.zst: is missing"]
    assert (key(0) in index, key(PER_SEGMENT) in index) == (False, True)


def test_damage_that_was_there_before_sealing_is_still_reported(raw: Path) -> None:
    flip(raw_path(raw, 1), 300)
    before = JournalIndex(raw).damaged
    seal(raw, 1)

    assert before
    assert JournalIndex(raw).damaged == before


def test_a_torn_tail_before_the_last_segment_stays_damage_when_sealed(raw: Path) -> None:
    path = raw_path(raw, 1)
    path.write_bytes(path.read_bytes()[:-5])
    before = all_said(JournalIndex(raw))
    seal(raw, 1)

    assert all_said(JournalIndex(raw)) == before
