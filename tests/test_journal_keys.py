"""The journal's tables of keys: one of many says what they say, and the last of them has the last word."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.journal.keys import KeyTable, SortedKeys
from synthgen.spool import Spool

# Keys that begin alike, so that blocks and slices are crossed by them.
KEYS = st.tuples(st.sampled_from([b"\0" * 8, b"\1" * 8, b"\xff" * 8]), st.binary(min_size=4, max_size=4)).map(
    lambda halves: halves[0] + halves[1] + bytes(4)
) | st.binary(min_size=16, max_size=16)
SEGMENTS = st.lists(st.dictionaries(KEYS, st.integers(0, 2**41 - 1), max_size=40), min_size=1, max_size=5)


@pytest.fixture(params=[2, 128], autouse=True)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two entries and slices of two blocks find what happens at their borders."""
    monkeypatch.setattr("synthgen.journal.keys._BLOCK", request.param)
    monkeypatch.setattr("synthgen.journal.keys._SLICE", 2 * request.param)


def tables(segments: list[dict[bytes, int]], spool: Spool) -> list[KeyTable]:
    return [KeyTable.of(SortedKeys.of(keys), n << 41, spool) for n, keys in enumerate(segments, 1)]


def latest(segments: list[dict[bytes, int]]) -> Mapping[bytes, int]:
    """By the 96 bits that are kept."""
    return {key[:12]: n << 41 | place for n, keys in enumerate(segments, 1) for key, place in keys.items()}


@settings(deadline=None, max_examples=60)
@given(SEGMENTS, KEYS)
def test_a_table_of_many_finds_what_a_dict_does(segments: list[dict[bytes, int]], other: bytes) -> None:
    spool, expected = Spool(), latest(segments)

    table = KeyTable.merged(tables(segments, spool), spool)

    assert len(table) == sum(map(len, segments))
    assert {key: table.find(key + bytes(4)) for key in expected} == expected
    assert table.find(other) == expected.get(other[:12])


@settings(deadline=None, max_examples=60)
@given(SEGMENTS)
def test_it_does_not_matter_in_which_steps_tables_become_one(segments: list[dict[bytes, int]]) -> None:
    spool, expected = Spool(), latest(segments)
    first, *others = tables(segments, spool)

    for other in others:
        first = KeyTable.merged([first, other], spool)

    assert {key: first.find(key + bytes(4)) for key in expected} == expected
    assert first.heads().tolist() == sorted(int.from_bytes(key[:8]) for keys in segments for key in keys)


def test_a_table_does_not_look_into_its_neighbour() -> None:
    spool, key = Spool(), b"\xff" * 16
    before = KeyTable.of(SortedKeys.of({bytes(16): 1}), 0, spool)

    KeyTable.of(SortedKeys.of({key: 2}), 0, spool)

    assert before.find(key) is None
