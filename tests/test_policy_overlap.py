"""When a text repeats its source: the check before `inspired` is believed."""

import pytest

from synthgen.refine import repeats

WORDS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
]
SOURCE = " ".join(WORDS)


@pytest.mark.parametrize(
    ("text", "source", "repeated"),
    [
        (SOURCE, SOURCE, True),
        ("And so: " + ", ".join(word.upper() for word in WORDS[1:14]) + "!", SOURCE, True),
        (" ".join(WORDS[1:13]), SOURCE, False),
        (" ".join(reversed(WORDS)), SOURCE, False),
        ("words before " + " ".join(WORDS[:8]) + " and after", " ".join(WORDS[:8]), True),
        (" ".join(WORDS[:7]), " ".join(WORDS[:7]), False),
        (SOURCE, "", False),
        ("", SOURCE, False),
        ("春眠不觉晓处处闻啼鸟夜来风雨声", "诗云春眠不觉晓处处闻啼鸟夜来风雨声花落", True),
    ],
)
def test_thirteen_words_in_a_row_or_all_of_a_shorter_source(text: str, source: str, repeated: bool) -> None:
    assert repeats(text, source) is repeated
