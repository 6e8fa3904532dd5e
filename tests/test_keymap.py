"""The map of keys to numbers does what a dict does."""

import random

from hypothesis import given
from hypothesis import strategies as st

from synthgen.keymap import KeyMap

# Few different bytes, so that keys share their shard and look like each other's middle.
KEYS = st.lists(st.sampled_from([b"\0", b"\1"]), min_size=16, max_size=16).map(b"".join)


@given(st.lists(st.tuples(KEYS, st.integers(0, 2**32 - 1))), KEYS)
def test_it_answers_as_a_dict_does(pairs: list[tuple[bytes, int]], other: bytes) -> None:
    keys, expected = KeyMap(), dict[bytes, int]()
    for key, number in pairs:
        assert keys.set(key, number) == expected.get(key)
        expected[key] = number

    assert len(keys) == len(expected)
    assert {key: keys.get(key) for key in expected} == expected
    assert keys.get(other) == expected.get(other)


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
