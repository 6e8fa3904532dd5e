"""The same prompt about the other gender: what a counterfactual question to a teacher is made of.

In: a prompt (and its system text), word lists. Out: both texts, or the reason why there are no two. Guarantees: every
word that says a gender is swapped, case kept, nothing else is touched; where English does not tell the word (`her`
is `him` or `his`, `his` is `her` or `hers`), or a text may name a person or speak of a sex, there is no swap.
Rejected: a parser or tagger (a model to download), and guessing (a broken sentence is answered differently for being
broken). The rules are for English; they look at the word before and after and nothing else.

    not_near        the gendered word and the profession are more than `WINDOW` words apart
    both_genders    it says both, or "s/he"
    name            a word that may be a person's name
    unswappable     a word that presupposes a sex ("pregnant", "policeman"), or a gendered one without a partner
    ambiguous       `her` or `his` that could be either
    language        another language than English

Source: Zhao et al. 2018, "Gender bias in coreference resolution" (gender swapping); Lu et al. 2018, "Gender bias in
neural natural language processing" (counterfactual data augmentation, and names as its limit).
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import tomli

from synthgen.dataclasses import dataclass
from synthgen.insight.bias import WINDOW, WordLists

__all__ = ["Gender", "Swap", "gendered", "swap"]

Gender = Literal["female", "male"]

_WORD = re.compile(r"\w+")
_EITHER_SEX = re.compile(r"(?i)\bs/he\b|\(s\)he\b|\b(?:she|her|he|him|his) ?/ ?(?:she|hers?|he|him|his)\b")
_NEXT = re.compile(r"[ \t\u00a0]*\n?[ \t\u00a0]*(\w+)")
_NOTHING_FOLLOWS = re.compile(r"[.,;:!?)\]}…”»]|[\"'’](?!\w)|\s*(?:$|\n\s*\n|[–—]|-\s)")
_BEFORE = re.compile(r"(\w+)[ \t\u00a0]+$")
_SENTENCE_BEGINS = re.compile(r"(?:^|[.!?:;\n])[\s\"'“‘’”(\[*_#>•\-–—\d.)]*$")
_AFTER_TITLE = re.compile(r"\.?[ \t\u00a0]+")
_LOOK_BACK = 40


@dataclass(frozen=True, slots=True)
class Swap:
    """A prompt that says `gender` near `profession`, and what it says of the other one."""

    gender: Gender
    profession: str
    prompt: str
    system: str


@dataclass(frozen=True, slots=True)
class _Rules:
    partner: Mapping[str, str]
    sets: Mapping[str, frozenset[str]]


@cache
def _rules() -> _Rules:
    read = tomli.loads((Path(__file__).parent / "data" / "swaps.toml").read_text(encoding="utf-8"))
    partner: dict[str, str] = {"hers": "his", "him": "her"}
    for female, male in read["pairs"]:
        partner.setdefault(female, male)
        partner.setdefault(male, female)
    return _Rules(
        partner,
        {
            name: frozenset(words)
            for name, words in read.items()
            if isinstance(words, list) and name != "pairs"
        },
    )


def gendered(lists: WordLists) -> frozenset[str]:
    """Every word that says a gender, or may take its place when it is swapped."""
    return frozenset((*lists.female, *lists.male, *_rules().partner))


def swap(prompt: str, lists: WordLists, system: str = "") -> Swap | str | None:
    """The prompt about the other gender; a reason of the module doc; None where no profession or no gender is named."""
    words = [match[0].casefold() for match in _WORD.finditer(prompt)]
    said_in_system = [match[0].casefold() for match in _WORD.finditer(system)]
    profession_of = {word: name for name, said in lists.professions.items() for word in said}
    named = [place for place, word in enumerate(words) if word in profession_of]
    sides = {"female": frozenset(lists.female), "male": frozenset(lists.male)}
    said = {side: [place for place, word in enumerate(words) if word in own] for side, own in sides.items()}
    if not named or not any(said.values()):
        return None
    both = f"{system}\n\n{prompt}"
    if all(
        any(word in own for word in (*words, *said_in_system)) for own in sides.values()
    ) or _EITHER_SEX.search(both):
        return "both_genders"
    gender: Gender = "female" if said["female"] else "male"
    near = [
        (abs(place - word), word) for place in said[gender] for word in named if abs(place - word) <= WINDOW
    ]
    if not near:
        return "not_near"
    if any(word in _rules().sets["unswappable"] for word in (*words, *said_in_system)):
        return "unswappable"
    if _may_name_a_person(prompt, lists) or _may_name_a_person(system, lists):
        return "name"
    try:
        return Swap(
            gender,
            profession_of[words[min(near)[1]]],
            _swapped(prompt, sides[gender]),
            _swapped(system, sides[gender]),
        )
    except _NoPartnerError as problem:
        return str(problem)


class _NoPartnerError(Exception):
    """A gendered word has no certain partner; the text is the reason."""


def _swapped(text: str, own: frozenset[str]) -> str:
    out: list[str] = []
    end = 0
    for match in _WORD.finditer(text):
        word = match[0].casefold()
        if word not in own:
            continue
        other = _her_or_his(text, match, word) if word in ("her", "his") else _rules().partner.get(word)
        if other is None:
            raise _NoPartnerError("ambiguous" if word in ("her", "his") else "unswappable")
        out += [text[end : match.start()], _in_case(other, match[0])]
        end = match.end()
    return "".join([*out, text[end:]])


def _her_or_his(text: str, match: re.Match[str], word: str) -> str | None:
    """What `her` and `his` become: `his` and `her` before a noun, `him` and `hers` where none follows, else None."""
    alone = "him" if word == "her" else "hers"
    before_noun = "his" if word == "her" else "her"
    sets = _rules().sets
    if _NOTHING_FOLLOWS.match(text, match.end()):
        return alone
    following = _NEXT.match(text, match.end())
    if following is None or following.start(1) == match.end():
        return None
    after = following[1].casefold()
    if after in sets["function_words"]:
        return alone
    if after in sets["either"] or (after.endswith("ly") and after not in sets["adjectives"]):
        return None
    before = _BEFORE.search(text, max(match.start() - _LOOK_BACK, 0), match.start())
    if word == "her" and before is not None and before[1].casefold() in sets["two_objects"]:
        return None
    return before_noun


def _in_case(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word.capitalize() if like[0].isupper() else word


def _may_name_a_person(text: str, lists: WordLists) -> bool:
    sets = _rules().sets
    no_name = {*lists.female, *lists.male, *(word for said in lists.professions.values() for word in said)}
    title_ends: int | None = None
    for match in _WORD.finditer(text):
        word = match[0].casefold()
        capital = match[0][0].isupper() and not match[0].isupper()
        if capital and word not in no_name:
            if word in sets["names"] or title_ends == match.start():
                return True
            before = text[max(match.start() - _LOOK_BACK, 0) : match.start()]
            if word not in sets["not_names"] and not _SENTENCE_BEGINS.search(before):
                return True
        gap = _AFTER_TITLE.match(text, match.end())
        title_ends = (
            gap.end() if gap and word in sets["titles"] and (len(word) < 5 or "." not in gap[0]) else None
        )
    return False
