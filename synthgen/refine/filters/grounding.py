"""Answers held against the text they were to be taken from.

In: a frame of the view whose rows have a field with that text: a string, or a list of strings. Out: verdicts with the reasons

    grounded   ungrounded    numbers and names that neither text nor prompt has
    supported  unsupported   sentences whose words neither has

Guarantee: what the prompt says counts as given too; a row without the text has no score, and neither has what cannot be compared: an
answer in another language than its text, or in a script without spaces.
Both are the cheap half of groundedness. What is false in the text's own words (a "not" too many, two names swapped) is a judge's to find.
Rejected: n-grams of two words and more for sentences (right paraphrases keep 60 % of a text's content words, and 20 % of
its word pairs), and a model of entailment (none is small and on the package index).
"""

import re
from collections.abc import Callable, Iterable
from typing import Annotated, ClassVar, TypeVar

import polars as pl
from pydantic import Field

from synthgen.plugins import Plugin
from synthgen.refine.filters.fields import field_values
from synthgen.refine.filters.number_words import number_words
from synthgen.refine.filters.text import completion
from synthgen.refine.needs import NeedsField
from synthgen.refine.verdict import Verdicts
from synthgen.types import JSONValue

__all__ = ["GROUNDED", "SUPPORTED", "GroundedParams", "SupportedParams", "grounded", "supported"]

Share = Annotated[float, Field(ge=0, le=1)]

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Two capitalised words in a row, or one with a capital inside: names in every language with capitals, German too.
_NAME = re.compile(r"[A-ZÀ-ÞА-Я][\w'’-]+(?: [A-ZÀ-ÞА-Я][\w'’-]+)+|\b\w+[a-z][A-Z]\w*\b")
# One capitalised word within a sentence; what comes from a place ("French", "Italian") is no name of its own.
_ALONE = re.compile(r"(?<=[a-zà-ÿа-я0-9,;] )[A-ZÀ-ÞА-Я]\w[\w'’-]*")
_OF_A_PLACE = re.compile(r"(?i)(?:ish|ese|ian|ean|can|man|nch|tch|eek|wiss)s?$")
_INNER = re.compile("[a-z][A-Z]")
_LIST_NUMBER = re.compile(r"(?m)^[ \t>]*\(?\d{1,3}[.):][ \t]+")
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)]*\s+|\n+")
_NO_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_LEAST_WORDS = 3  # content words in a sentence that is judged
_STEM = 5  # letters that forms of one word share: "renew", "renewed", "renewal"
# Words of grammar, by language: of no weight in a sentence, and by which its language is known.
_GRAMMAR = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the a an and or but if of in on at to for from by with as is are was were be been being it its this that "
        "these those he she they his her their you your we our not no can may will would should must have has had do does "
        "did than then there when which who what where how so such into out up about after before also any all each only "
        "more most very just them him because while over under one until per both either nor own same too here i me my",
        "de": "der die das den dem des ein eine einen einem einer eines und oder aber wenn von in im an am auf zu zum zur für "
        "aus bei mit als ist sind war waren sein es dies diese dieser dieses er sie ihr ihre sein seine nicht kein keine kann "
        "können darf muss müssen hat haben hatte wird werden wurde wurden auch nur noch sich wie was wer wo dass um nach vor "
        "über unter bis durch man wir ich",
        "fr": "le la les un une des du de et ou mais si en dans sur à au aux pour par avec est sont était étaient être il elle "
        "ils elles son sa ses leur leurs ce cette ces que qui quoi dont où ne pas plus se on nous vous je a ont avait comme",
        "es": "el la los las un una unos unas y o pero si de del en a al para por con es son era eran ser fue su sus este esta "
        "estos estas que quien cuando donde como no se lo le les más muy también ha han había",
    }.items()
}
_ALL_GRAMMAR = frozenset().union(*_GRAMMAR.values())
Said = tuple[str | None, float | None, str | None]
P = TypeVar("P", "GroundedParams", "SupportedParams")


class GroundedParams(NeedsField):
    """`document`: the row's field with the given text. `min_share`: least share of the answer's numbers and names that
    the document or the prompt holds; 0.8 allows a sum or an ordinal among five facts."""

    needs: ClassVar[str] = "document"

    document: str = "document"
    min_share: Share = 0.8


def grounded(frame: pl.DataFrame, params: GroundedParams) -> Verdicts:
    """Numbers and names in the answer that the document does not have; `detail` lists the first three.

    Numbers are digits, and words from four up ("seventeen"; "two ways" is often the answer's own count), and stand for each
    other. An answer without numbers and names has no score.
    """
    return _held_against(frame, params, "ungrounded", _missing_facts)


def _missing_facts(answer: str, given: str) -> tuple[float | None, list[str]]:
    text = _LIST_NUMBER.sub("", answer)
    plain = _plain(given)
    numbers = {*_NUMBER.findall(plain), *map(str, number_words(given).values())}
    counted = number_words(text)
    facts = list(dict.fromkeys([*_NUMBER.findall(text), *_names(text), *counted]))

    def is_given(fact: str) -> bool:
        if fact in counted or fact[0].isdigit():
            return str(counted.get(fact, _plain(fact))) in numbers
        # A name's words may stand apart ("President Lincoln"), and come in another form ("Parisians").
        return all(
            re.search(rf"(?<!\w){re.escape(word)}\w{{0,3}}(?!\w)", plain) for word in _plain(fact).split()
        )

    missing = [fact for fact in facts if not is_given(fact)]
    return (1 - len(missing) / len(facts) if facts else None), missing


def _names(text: str) -> list[str]:
    """Names of several words, and of one where not every noun has a capital."""
    found = [_without_grammar(name) for name in _NAME.findall(text)] + _ALONE.findall(_NAME.sub("", text))
    alone = _language(text) != "de"
    return [
        name.removesuffix("'s").removesuffix("’s")
        for name in found
        if " " in name or (name and alone and not _OF_A_PLACE.search(name)) or _INNER.search(name)
    ]


def _without_grammar(name: str) -> str:
    """As of "The Tower": at the beginning of a sentence that is no name of two words."""
    words = name.split()
    while words and words[0].casefold() in _ALL_GRAMMAR:
        words.pop(0)
    return " ".join(words)


def _plain(text: str) -> str:
    """Case-folded, with one apostrophe and without the commas of thousands."""
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.casefold().replace("’", "'"))


class SupportedParams(NeedsField):
    """`document`: the row's field with the given text. `min_words`: least share of a sentence's content words that the document
    or the prompt holds; right paraphrases keep 0.6 of them, invented sentences 0.2. `min_share`: least share of supported
    sentences that is kept."""

    needs: ClassVar[str] = "document"

    document: str = "document"
    min_words: Share = 0.4
    min_share: Share = 0.5


def supported(frame: pl.DataFrame, params: SupportedParams) -> Verdicts:
    """Sentences of words that the document does not have; `detail` is the first of them.

    Compared are words of content, by their first five letters; a sentence with fewer than three of them says too little.
    """

    def unsupported(answer: str, given: str) -> tuple[float | None, list[str]]:
        if _NO_SPACES.search(answer) or _language(answer) not in (None, _language(given)):
            return None, []
        known = _content(given)
        judged = [(part.strip(), _content(part)) for part in _SENTENCE.split(_LIST_NUMBER.sub("", answer))]
        judged = [(part, words) for part, words in judged if len(words) >= _LEAST_WORDS]
        alone = [part for part, words in judged if len(words & known) < params.min_words * len(words)]
        return (1 - len(alone) / len(judged) if judged else None), alone

    return _held_against(frame, params, "unsupported", unsupported)


def _content(text: str) -> set[str]:
    """The stems of its words of content; what of a hyphen's two halves is known is known of the whole."""
    words = (word for word in _WORD.findall(text.casefold()) if len(word) > 2)
    return {word[:_STEM] for word in words if word not in _ALL_GRAMMAR}


def _language(text: str) -> str | None:
    """The language whose grammar most of its words belong to; None where hardly any do."""
    words = _WORD.findall(text.casefold())
    shares = {name: sum(word in grammar for word in words) for name, grammar in _GRAMMAR.items()}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] > 0.1 * len(words) else None


def _held_against(
    frame: pl.DataFrame,
    params: P,
    reason: str,
    measure: Callable[[str, str], tuple[float | None, list[str]]],
) -> Verdicts:
    said: list[Said] = []
    answers = frame.select("prompt", completion()).iter_rows()
    for value, (prompt, answer) in zip(field_values(frame, params.document), answers, strict=True):
        document = _text(value)
        share, missing = (None, []) if document is None else measure(answer, f"{document}\n{prompt or ''}")
        low = share is not None and share < params.min_share
        said.append((reason if low else None, share, ", ".join(missing[:3])[:200] if low else None))
    reasons, measured, detail = zip(*said, strict=True) if said else ((), (), ())
    bound = [None if why is None else params.min_share for why in reasons]
    return Verdicts(
        pl.Series("reason", reasons, pl.String),
        pl.Series("score", measured, pl.Float64),
        pl.Series("detail", detail, pl.String),
        pl.Series("threshold", bound, pl.Float64),
    )


def _text(value: JSONValue) -> str | None:
    if isinstance(value, list):
        texts: Iterable[str] = (part for part in value if isinstance(part, str))
        value = "\n".join(texts)
    return value if isinstance(value, str) and value.strip() else None


GROUNDED = Plugin("grounded", GroundedParams, grounded, version=2)
SUPPORTED = Plugin("supported", SupportedParams, supported)
