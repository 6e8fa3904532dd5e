"""Numbers written as words, in English, German, French and Spanish.

In: a text. Out: the phrases in it that are whole numbers from four up, with their values. Smaller ones are as often articles,
pronouns and a writer's own count ("for two reasons").
"""

import re

__all__ = ["number_words"]

_ENGLISH = [
    "zero",
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
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {
    **{word: value for value, word in enumerate(_ENGLISH)},
    **{word: 10 * value for value, word in enumerate(_TENS, 2)},
    **{f"{ten}-{one}": 10 * place + value for place, ten in enumerate(_TENS, 2) for value, one in enumerate(_ENGLISH[1:10], 1)},
}  # fmt: skip
_BIG = {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
_LEAST = 4


def _others() -> dict[str, int]:
    lists = (
        "vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig",
        "quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit dix-neuf vingt",
        "cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete dieciocho diecinueve veinte",
    )
    words = {word: value for text in lists for value, word in enumerate(text.split(), _LEAST)}
    tens = ["dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
    words |= {word: 10 * value for value, word in enumerate(tens, 3)}
    units = ["ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
    for place, ten in enumerate(["zwanzig", *tens], 2):
        words |= {f"{one}und{ten}": 10 * place + value for value, one in enumerate(units, 1)}
    del words["once"]  # "once" is no eleven in English
    return words


_OTHERS = _others()
_ANY = "|".join(sorted({*_SMALL, *_OTHERS}, key=lambda word: (-len(word), word)))
_BIGS = "|".join(_BIG)
_GROUP = rf"(?:{_ANY}|an?)(?: (?:{_BIGS}))+"
_PHRASE = re.compile(
    rf"(?i)(?<![\w-])(?:{_GROUP}(?: (?:and )?{_GROUP})*(?: (?:and )?(?:{_ANY}))?|{_ANY})(?![\w-])"
)


def number_words(text: str) -> dict[str, int]:
    """The phrases as they stand there, in order, with what they come to."""
    found = {match[0]: _value(match[0].lower()) for match in _PHRASE.finditer(text)}
    return {phrase: value for phrase, value in found.items() if value >= _LEAST}


def _value(phrase: str) -> int:
    total = part = 0
    for word in phrase.split():
        if word in _BIG:
            part = max(part, 1) * _BIG[word]
            if _BIG[word] > 100:
                total, part = total + part, 0
        elif word != "and":
            part += _SMALL.get(word, _OTHERS.get(word, 0))
    return total + part
