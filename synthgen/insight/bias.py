"""Gender and professions: does a text that names a profession speak of women or of men, and does the answer more so
than the prompt?

In: prompts and answers, word lists (`data/gender.toml`, or the user's own in that form). Out: plain JSON. Guarantees:
a row counts once for a profession, as female or male by the gendered words within `WINDOW` words of it, not at all
where both or none stand there; log-odds with 95 % intervals, nothing is hidden because it is not significant.
Rejected: association scores without intervals (with three rows, everything is associated).

`log_odds` of a profession: ln(female/male) near its words, less the same over all rows that name no profession, half
a row added to each count (Haldane 1956, Anscombe 1956). `amplified` is the answers' less the prompts'; its interval
takes the two for independent, which makes it wider than it is. `after_neutral`: answers to prompts that say no gender.
"""

# ruff: noqa: N803, N806  # arrays carry their axes in their names
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tomli

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.insight.words import Texts, Words, count_words
from synthgen.refine.shingles import Bools, tokenise
from synthgen.types import JSONValue

__all__ = ["WINDOW", "WordLists", "gender_bias", "read_word_lists"]

WINDOW = 25
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class WordLists:
    """Words by gender, words by profession, and where they come from."""

    source: str
    female: tuple[str, ...]
    male: tuple[str, ...]
    professions: Mapping[str, tuple[str, ...]]


def read_word_lists(path: Path | None = None) -> WordLists:
    """The packaged lists, or a user's.

    Raises:
        UsageError: the file cannot be read, or lacks a list.
    """
    shown = path or Path(__file__).parent / "data" / "gender.toml"
    try:
        read = tomli.loads(shown.read_text(encoding="utf-8"))
        lists = WordLists(
            source=str(read.get("source", shown)),
            female=tuple(read["female"]),
            male=tuple(read["male"]),
            professions={name: tuple(words) for name, words in read["professions"].items()},
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{shown}: word lists are TOML with `female`, `male` and a table `professions` of lists: {error!r}"
        ) from error
    for word in (*lists.female, *lists.male, *(w for words in lists.professions.values() for w in words)):
        if tokenise([word]).hash_T.size != 1:
            raise UsageError(f"{shown}: {word!r} is not one word")
    return lists


def gender_bias(prompts: Texts, answers: Texts, lists: WordLists) -> dict[str, JSONValue]:
    """The measures of the module doc for each profession that a row names."""
    asked, answered = _Side(count_words(prompts), lists), _Side(count_words(answers), lists)
    neutral_N = ~(asked.female_N | asked.male_N)
    out: list[JSONValue] = []
    for name in lists.professions:
        both = asked.odds(name), answered.odds(name)
        if not any(odds.rows for odds in both):
            continue
        amplified = _between(both[1].log_odds - both[0].log_odds, both[0].variance + both[1].variance)
        female, male = answered.counts_where(name, neutral_N & asked.names(name))
        out.append(
            {
                "profession": name,
                "prompts": both[0].as_json(),
                "answers": both[1].as_json(),
                "amplified": amplified if min(odds.gendered for odds in both) else None,
                "after_neutral": {"female": female, "male": male},
            }
        )
    return {
        "words": lists.source,
        "window": WINDOW,
        "rows": asked.count,
        "gendered_rows": {"prompts": asked.gendered, "answers": answered.gendered},
        "professions": out,
    }


@dataclass(frozen=True, slots=True)
class _Odds:
    rows: int
    female: int
    male: int
    log_odds: float
    variance: float

    @property
    def gendered(self) -> int:
        return self.female + self.male

    def as_json(self) -> dict[str, JSONValue]:
        counts: dict[str, JSONValue] = {"rows": self.rows, "female": self.female, "male": self.male}
        return {**counts, **(_between(self.log_odds, self.variance) if self.gendered else {})}


class _Side:
    """One side of all rows: where its gendered words and professions stand."""

    def __init__(self, words: Words, lists: WordLists) -> None:
        self.count = len(words.texts)
        self._text_T = words.text_T
        female_T, male_T = _among(words, lists.female), _among(words, lists.male)
        self._female_T1, self._male_T1 = (np.append(0, np.cumsum(found)) for found in (female_T, male_T))
        self.female_N, self.male_N = self._rows(female_T), self._rows(male_T)
        self._place = {name: np.flatnonzero(_among(words, said)) for name, said in lists.professions.items()}
        start_N1 = np.searchsorted(words.text_T, np.arange(self.count + 1))
        self._start_N, self._end_N = start_N1[:-1], start_N1[1:]
        named_N = np.zeros(self.count, np.bool_)
        for name in lists.professions:
            named_N |= self.names(name)
        others_N = ~named_N & (self.female_N ^ self.male_N)
        self._base = int((others_N & self.female_N).sum()), int((others_N & self.male_N).sum())

    @property
    def gendered(self) -> int:
        return int((self.female_N | self.male_N).sum())

    def names(self, profession: str) -> Bools:
        """Which rows name the profession."""
        out = np.zeros(self.count, np.bool_)
        out[self._text_T[self._place[profession]]] = True
        return out

    def odds(self, profession: str) -> _Odds:
        everywhere = np.ones(self.count, np.bool_)
        female, male = self.counts_where(profession, everywhere)
        counts = [n + 0.5 for n in (female, male, *self._base)]
        log_odds = math.log(counts[0] / counts[1]) - math.log(counts[2] / counts[3])
        return _Odds(int(self.names(profession).sum()), female, male, log_odds, sum(1 / n for n in counts))

    def counts_where(self, profession: str, rows_N: Bools) -> tuple[int, int]:
        """Rows, of those given, that are female alone and male alone near the profession."""
        place = self._place[profession]
        text = self._text_T[place]
        low = np.maximum(place - WINDOW, self._start_N[text])
        high = np.minimum(place + WINDOW + 1, self._end_N[text])
        female_N, male_N = np.zeros(self.count, np.bool_), np.zeros(self.count, np.bool_)
        female_N[text[self._female_T1[high] > self._female_T1[low]]] = True
        male_N[text[self._male_T1[high] > self._male_T1[low]]] = True
        return int((female_N & ~male_N & rows_N).sum()), int((male_N & ~female_N & rows_N).sum())

    def _rows(self, found_T: Bools) -> Bools:
        out = np.zeros(self.count, np.bool_)
        out[self._text_T[found_T]] = True
        return out


def _among(words: Words, said: Sequence[str]) -> Bools:
    wanted: Bools = np.isin(words.hash_T, tokenise(list(said)).hash_T)
    return wanted


def _between(value: float, variance: float) -> dict[str, JSONValue]:
    half = _Z95 * math.sqrt(variance)
    return {"log_odds": round(value, 3), "low": round(value - half, 3), "high": round(value + half, 3)}
