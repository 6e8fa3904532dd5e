"""The map of keys to numbers does what a dict does."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.keymap import KeyMap

# Few different bytes, so that keys share their shard and look like each other's middle.
KEYS = st.lists(st.sampled_from([b"\0", b"\1", b"\x10"]), min_size=16, max_size=16).map(b"".join)


@pytest.mark.parametrize("small", [False, True])
@given(st.lists(st.tuples(KEYS, st.integers(0, 2**32 - 1))), KEYS)
def test_it_answers_as_a_dict_does(small: bool, pairs: list[tuple[bytes, int]], other: bytes) -> None:
    keys, expected = KeyMap(small=small), dict[bytes, int]()
    for key, number in pairs:
        assert keys.set(key, number) == expected.get(key)
        expected[key] = number

    assert len(keys) == len(expected)
    assert {key: keys.get(key) for key in expected} == expected
    assert dict(keys.items()) == expected
    assert keys.get(other) == expected.get(other)


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
