"""A run as texts with distributions over classes.

In: a dataset as the trainer reads it. Out: `ClassRows`. Guarantees: a text of the test split is in no row; every text is
there once, with all that was said about it; what could not be used is counted by reason.

Answers to one row are often equal, so a run with duplicate removal publishes one of them: the others are read from its
`rejected/`, where they stand as `dedup:exact` and `dedup:near`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from synthgen.dataclasses import dataclass
from synthgen.dataset.formats import MalformedRow, find_format, read_messages
from synthgen.errors import SourceError, UsageError
from synthgen.train.class_labels import choices, votes
from synthgen.train.classify import Row
from synthgen.train.conversation import Conversation
from synthgen.train.reading import Dataset
from synthgen.train.tasks.config import ClassifyConfig, LabelConfig
from synthgen.train.tasks.texts import question
from synthgen.train.tokenizers import load_tokenizer

__all__ = ["ClassRows", "class_rows"]

Floats = NDArray[np.float64]
Spell = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class ClassRows:
    """`rows` and the root row each came from, in the same order; `answers` is how many were counted into them."""

    rows: tuple[Row, ...]
    roots: tuple[str, ...]
    answers: int
    refused: Mapping[str, int]


def class_rows(data: Dataset, config: ClassifyConfig, path: Callable[[str], Path]) -> ClassRows:
    """Texts and their distributions; `path` resolves what the file names.

    Raises:
        UsageError: not one text has a distribution, or choices are asked of data without captures.
        SourceError: captures cannot be read.
    """
    refused: Counter[str] = Counter()
    answered = list(data.conversations)
    if data.folder is not None and config.labels.source == "votes":
        answered += _removed(data.folder)
    seen = (
        None
        if config.labels.source == "votes"
        else _captured(data, config.labels, config.classes, path, refused)
    )
    tested = _tested(data.folder, config)
    found: dict[str, list[tuple[str, Floats]]] = {}
    for conversation in answered:
        text = question(conversation, config.text)
        if text is None:
            refused["no_text"] += 1
        elif text in tested:
            refused["in_test_split"] += 1
        elif seen is not None:
            if conversation.id in seen:
                found.setdefault(text, []).append((conversation.row, seen[conversation.id]))
        elif (vote := _vote(conversation, config)) is None:
            refused["no_class"] += 1
        else:
            found.setdefault(text, []).append((conversation.row, vote))
    if not found:
        raise UsageError(
            f"no text has an answer that names one of {', '.join(config.classes)}: {dict(refused)}"
        )
    rows, roots = [], []
    for text, labels in found.items():
        mean = np.mean([one for _, one in labels], axis=0)
        rows.append(Row(text, tuple((mean / mean.sum()).tolist())))
        roots.append(labels[0][0])
    return ClassRows(tuple(rows), tuple(roots), sum(map(len, found.values())), dict(refused))


def _vote(conversation: Conversation, config: ClassifyConfig) -> Floats | None:
    """All mass on the class the last answer names; None where it names none."""
    answers = [message.content for message in conversation.messages if message.role == "assistant"]
    answer = answers[-1] if answers else None
    if answer is not None and config.labels.field is not None:
        answer = _field(answer, config.labels.field)
    try:
        return None if answer is None else votes([answer], config.classes)
    except ValueError:
        return None


def _field(answer: str, name: str) -> str | None:
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _removed(folder: Path) -> Iterator[Conversation]:
    """Records that were dropped for saying what another one says."""
    for file in sorted(folder.glob("rejected/*.parquet")):
        frame = pl.read_parquet(file).filter(pl.col("stage").is_in(["dedup:exact", "dedup:near"]))
        yield from _conversations(frame, file)


def _tested(folder: Path | None, config: ClassifyConfig) -> set[str]:
    """Texts of the test split, which only an evaluation may see."""
    if folder is None:
        return set()
    files = sorted(folder.glob("data/test-*.parquet"))
    held_out = (one for file in files for one in _conversations(pl.read_parquet(file), file))
    return {text for one in held_out if (text := question(one, config.text)) is not None}


def _conversations(frame: pl.DataFrame, file: Path) -> Iterator[Conversation]:
    format = find_format(set(frame.columns))
    if format is None:
        raise SourceError(f"{file}: holds no conversations")
    for row in frame.iter_rows(named=True):
        try:
            messages = read_messages(row, format)
        except MalformedRow:
            continue  # of a rejected record, which need not be whole
        yield Conversation(messages, (True,) * len(messages), id=str(row["id"]), row=str(row["row"]))


def _captured(
    data: Dataset,
    labels: LabelConfig,
    classes: tuple[str, ...],
    path: Callable[[str], Path],
    refused: Counter[str],
) -> dict[str, Floats]:
    """Distributions by record id."""
    files = sorted((data.folder / "logprobs").glob("*.parquet")) if data.folder is not None else []
    if not files:
        raise UsageError(
            "labels.source: choices needs captured logprobs: a run with `capture: {logprobs: 20}` in its last step; "
            "or count answers instead: labels.source: votes"
        )
    spell = _speller(labels, path)
    found = {}
    for file in files:
        for row in pl.read_parquet(file).iter_rows(named=True):
            try:
                tokens, tops = _spelled(row, spell)
                choice = choices(tokens, tops, row["top_logprobs"], classes, before=labels.before)
            except ValueError:
                refused["no_class"] += 1
                continue
            if choice.covered < labels.least:
                refused["little_covered"] += 1
                continue
            found[str(row["id"])] = choice.probabilities
    return found


def _speller(labels: LabelConfig, path: Callable[[str], Path]) -> Spell | None:
    if labels.tokenizer is None:
        return None
    named = path(labels.tokenizer)
    tokenizer = load_tokenizer(str(named) if named.exists() else labels.tokenizer)
    return lambda one: str(tokenizer.decode([one]))


def _spelled(
    row: Mapping[str, list[object]], spell: Spell | None
) -> tuple[list[str], list[list[str | None]]]:
    """Texts of the tokens of a captured reply, and of their alternatives; ids are spelled where texts are missing."""
    if spell is not None:
        tops = [_list(top) for top in row["top_ids"]]
        return _texts(row["token_ids"], spell), [list(_texts(top, spell)) for top in tops]
    tops = [_list(top) for top in row["top_tokens"]]
    if any(text is None for top in tops for text in top):
        raise UsageError(
            "labels: the captures hold ids without texts: name the teacher's tokenizer with labels.tokenizer"
        )
    return list(map(str, row["tokens"])), [list(map(str, top)) for top in tops]


def _texts(ids: list[object], spell: Spell) -> list[str]:
    return [spell(one) for one in ids if isinstance(one, int)]


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value
