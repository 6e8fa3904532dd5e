"""The maps of keys to numbers do what a dict does, in memory and on disk."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import StorageError
from synthgen.keymap import KeyMap
from synthgen.spool import Spool

# Few different bytes, so that keys share their shard and look like each other's middle.
KEYS = st.lists(st.sampled_from([b"\0", b"\1", b"\x10"]), min_size=16, max_size=16).map(b"".join)
# All in one shard, with few marks, and enough of them to fill its pages.
ALIKE = st.lists(st.sampled_from([b"\0", b"\1"]), min_size=8, max_size=8).map(b"".join).map(bytes(8).__add__)


def spooled(in_memory: bool) -> Spool | None:
    return None if in_memory else Spool()


@pytest.mark.parametrize("in_memory", [True, False])
@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(KEYS | ALIKE, st.integers(0, 2**32 - 1)), max_size=120), KEYS)
def test_it_answers_as_a_dict_does(in_memory: bool, pairs: list[tuple[bytes, int]], other: bytes) -> None:
    keys, expected = KeyMap(spool=spooled(in_memory)), dict[bytes, int]()
    for key, number in pairs:
        assert keys.set(key, number) == expected.get(key)
        expected[key] = number

    assert len(keys) == len(expected)
    assert {key: keys.get(key) for key in expected} == expected
    assert dict(keys.items()) == expected
    assert keys.get(other) == expected.get(other)


@pytest.mark.parametrize("in_memory", [True, False])
def test_thousands_of_keys_are_found_wherever_they_lie(in_memory: bool) -> None:
    keys, draw = KeyMap(number_bytes=6, spool=spooled(in_memory)), random.Random(2)
    # A sixteenth of the shards, so that these hold several pages.
    pairs = {bytes([draw.randrange(16)]) + draw.randbytes(15): draw.getrandbits(48) for _ in range(20_000)}
    for key in pairs:
        keys.set(key, 1)
    for key, number in pairs.items():
        assert keys.set(key, number) == 1

    assert len(keys) == len(pairs)
    assert all(keys.get(key) == number for key, number in pairs.items())
    assert dict(keys.items()) == pairs
    assert all(keys.get(draw.randbytes(16)) is None for _ in range(1000))


def crowd(spool: Spool, size: int) -> tuple[KeyMap, dict[bytes, int]]:
    """So many keys in a single shard, enough for marks of one byte and of two."""
    keys, draw, pairs = KeyMap(spool=spool), random.Random(3), dict[bytes, int]()
    for number in range(size):
        pairs[b"\0\0" + draw.randbytes(14)] = number
    for key, number in pairs.items():
        keys.set(key, number)
    return keys, pairs


def test_a_crowded_shard_answers_as_a_dict_does() -> None:
    keys, pairs = crowd(Spool(), 2000)
    draw = random.Random(4)

    again = {key: keys.set(key, number + 1) for key, number in pairs.items()}

    assert again == pairs
    assert dict(keys.items()) == {key: number + 1 for key, number in pairs.items()}
    assert all(keys.get(b"\0\0" + draw.randbytes(14)) is None for _ in range(1000))


def test_a_key_that_is_not_there_costs_about_one_read_however_crowded_its_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, _ = crowd(Spool(), 5000)
    reads, read, draw = [], Spool.read, random.Random(5)
    monkeypatch.setattr(Spool, "read", lambda *args: reads.append(args) or read(*args))

    for _ in range(1000):
        keys.get(b"\0\0" + draw.randbytes(14))

    assert 800 < len(reads) < 1200


def test_keys_alike_in_what_is_kept_of_them_are_one() -> None:
    keys = KeyMap(kept_bytes=10)
    keys.set(bytes(10) + b"before", 1)

    assert keys.get(bytes(10) + b"behind") == 1
    assert keys.get(bytes(9) + b"another") is None
    assert list(keys.items()) == [(bytes(10), 1)]


def test_a_number_too_large_is_refused_and_the_key_stays_unknown() -> None:
    keys = KeyMap(number_bytes=2)

    with pytest.raises(OverflowError):
        keys.set(bytes(16), 2**16)

    assert keys.get(bytes(16)) is None


def test_numbers_that_look_like_keys_are_not_taken_for_one() -> None:
    keys, draw = KeyMap(), random.Random(1)
    pairs = {b"\0\0" + bytes(draw.choices((0, 1), k=14)): draw.choice((0, 1, 257, 65537)) for _ in range(500)}
    for key, number in pairs.items():
        keys.set(key, number)

    absent = [
        key for n in range(2**14) if (key := b"\0\0" + bytes((n >> i) & 1 for i in range(14))) not in pairs
    ]
    assert all(keys.get(key) == number for key, number in pairs.items())
    assert all(keys.get(key) is None for key in absent)


# Where it spills


def fill(keys: KeyMap) -> None:
    for number in range(100):
        keys.set(bytes(12) + number.to_bytes(4), number)


def test_what_is_spilled_leaves_no_file_behind(tmp_path: Path) -> None:
    keys = KeyMap(spool=Spool(tmp_path))

    fill(keys)

    assert keys.get(bytes(16)) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_replaced_by_the_systems(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "not there")

    assert spool.read(6, spool.append(b"stored")) == b"stored"


def test_few_keys_need_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthgen.spool.tempfile.TemporaryFile", None)
    keys = KeyMap(spool=Spool())

    keys.set(bytes(16), 1)

    assert (keys.get(bytes(16)), keys.get(b"\1" * 16)) == (1, None)


def test_a_full_disk_is_a_storage_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int, _raw: memoryview, _at: int) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("synthgen.spool.os.pwrite", full)

    with pytest.raises(StorageError, match="No space left on device; free space in the run folder"):
        fill(KeyMap(spool=Spool()))


def test_a_write_that_took_only_a_part_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr("synthgen.spool.os.pwrite", lambda handle, raw, at: write(handle, raw[:3], at))
    spool = Spool()
    spool.append(b"first ")

    start = spool.append(b"and the rest")

    assert spool.read(100, start) == b"and the rest"


def test_a_system_without_reads_and_writes_at_a_place_does_with_seeking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "pread")
    monkeypatch.delattr(os, "pwrite")
    spool = Spool()
    first, second = spool.append(b"first"), spool.append(b"second")

    spool.write(b"FIRST", first)

    assert (spool.read(5, first), spool.read(6, second)) == (b"FIRST", b"second")
