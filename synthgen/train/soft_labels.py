"""Captured logprobs of a teacher as soft labels on the student's own tokens.

In: `logprobs/*.parquet` of a run or of `synthgen train score`, and the student's examples. Out: examples with soft labels,
and for the others a reason. Guarantees: ids are the student's (tokenizer digests are equal); a distribution stands at the
very token the teacher chose it for, because the captured ids of a reply are, one by one, the targets of a turn. Nothing is
repaired: a reply that was trimmed or edited on its way into the record, or that its teacher spelled with other tokens
than its tokenizer would, does not fit and is counted.
Rejected: aligning from the end of a row (wrong by one where a template adds a line break, and for all turns but the
last); encoding the token texts again (other ids than the teacher scored).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from synthgen.dataclasses import dataclass
from synthgen.errors import SourceError, UsageError
from synthgen.train.examples import NO_TOKEN, Example, SoftLabels, Span
from synthgen.train.tokenizers import WAY_OUT, load_tokenizer, require_same, tokenizer_digest

__all__ = ["Capture", "Captures", "Labelled", "Misfit", "read_captures", "scored_step", "soften"]

_DIGEST_KEY = "synthgen.tokenizer_sha256"
_COLUMNS = ("id", "step", "tokenizer", "ids_complete", "token_ids", "logprobs", "top_ids", "top_logprobs")
_SCORED = "score:"  # no name of a step holds a colon
_ROUNDING = 1e-3  # the capture's own bound on sums, see `asking/wire/logprobs.py`

Misfit = Literal["no_capture", "other_text", "other_split", "unknown_id", "invalid"]


@dataclass(frozen=True, slots=True)
class Capture:
    """One reply: the generated ids, their logprobs, and the likeliest of each position.

    `message`: which message of the record it is, where that is known (scores say it, a teacher's captures do not).
    """

    message: int | None
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_ids: tuple[tuple[int, ...], ...]
    top_logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Captures:
    """Captured replies by record id; whose ids they are: names of tokenizers, or their digests where files have them."""

    by_record: Mapping[str, Sequence[Capture]]
    tokenizers: frozenset[str]
    digests: frozenset[str]

    def require_tokenizer(self, student: PreTrainedTokenizerBase, named: str | None = None) -> None:
        """Nothing, if all ids are the student's; `named` says whose they are where the files do not.

        Raises:
            UsageError: they are not, or nothing proves that they are.
        """
        if self.digests and self.digests == {tokenizer_digest(student)}:
            return
        sources = {named} if named is not None else self.tokenizers
        if not sources:
            raise UsageError(
                "the captures do not say whose token ids they hold; name the teacher's tokenizer with "
                "`loss.kd.tokenizer` (in the recipe: `hf` of the teacher)"
            )
        for source in sorted(sources):
            try:
                teachers = load_tokenizer(source)
            except UsageError as error:
                raise UsageError(
                    f"{error}; without it nothing proves that captured ids are the student's: name a local copy with "
                    "`loss.kd.tokenizer`"
                ) from error
            require_same(teachers, student)


@dataclass(frozen=True, slots=True)
class Labelled:
    """All examples that go on, in their order; how many have soft labels; why others have none."""

    examples: tuple[Example, ...]
    soft: int
    misfits: Counter[Misfit]


def read_captures(folder: Path) -> Captures:
    """Everything captured in a folder of sidecar files.

    Raises:
        SourceError: no such files, or they are not ours.
        UsageError: they hold no token ids, which no training can do without.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise SourceError(
            f"{folder}: no captured logprobs: capture them (`capture: {{logprobs: 20}}` with a `vllm` teacher), or compute "
            "them from a checkpoint with `synthgen train score`"
        )
    frame, digests = _read(files)
    without = frame.filter(~pl.col("ids_complete")).height
    if without == frame.height:
        raise UsageError(
            f"{folder}: the captured replies hold no token ids, only texts of tokens, and encoding those again gives other "
            f"tokens than the teacher scored; only `vllm` teachers give ids. Way out: {WAY_OUT}; or score the answers with "
            "an open-weight teacher: `synthgen train score`. As class-level soft labels (`synthgen.train.classify`) texts do"
        )
    by_record: dict[str, list[Capture]] = {}
    whole = frame.filter(pl.col("ids_complete"))
    for row in whole.iter_rows(named=True):
        capture = Capture(
            scored_message(row["step"]),
            tuple(row["token_ids"]),
            tuple(row["logprobs"]),
            tuple(map(tuple, row["top_ids"])),
            tuple(map(tuple, row["top_logprobs"])),
        )
        by_record.setdefault(row["id"], []).append(capture)
    return Captures(by_record, frozenset(whole["tokenizer"].drop_nulls()), digests)


def scored_step(message: int) -> str:
    """What the column `step` says of a scored message."""
    return f"{_SCORED}{message}"


def scored_message(step: str) -> int | None:
    """Which message `scored_step` was of; None for a step of a recipe."""
    number = step.removeprefix(_SCORED)
    return int(number) if step.startswith(_SCORED) and number.isdecimal() else None


def _read(files: Sequence[Path]) -> tuple[pl.DataFrame, frozenset[str]]:
    """All rows, and the tokenizer digests the files carry; none unless all do."""
    digests: set[str | None] = set()
    try:
        for file in files:
            digests.add(pl.read_parquet_metadata(file).get(_DIGEST_KEY))
        frame = pl.concat([pl.read_parquet(file, columns=list(_COLUMNS)) for file in files])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"{files[0].parent}: no sidecar of logprobs: {error}") from error
    return frame, frozenset() if None in digests else frozenset(d for d in digests if d is not None)


def soften(
    examples: Iterable[Example],
    captures: Captures,
    tokenizer: PreTrainedTokenizerBase,
    *,
    k: int,
    unaligned: Literal["drop", "labels"] = "drop",
) -> Labelled:
    """Give examples the soft labels of their records, of each position the `k` likeliest tokens known.

    Turns that nobody captured keep their labels beside those that were. A misfit is left out, or with
    `unaligned="labels"` trained on its labels alone. Rationales that are targets of their own always are.

    Raises:
        UsageError: not one example fits.
    """
    out: list[Example] = []
    misfits: Counter[Misfit] = Counter()
    soft = 0
    for example in examples:
        if example.part == "rationale":
            out.append(example)
            continue
        found = _soft_labels(example, captures.by_record.get(example.id, ()), tokenizer, k)
        if isinstance(found, SoftLabels):
            soft += 1
            out.append(example.with_soft(found))
        else:
            misfits[found] += 1
            if unaligned == "labels":
                out.append(example)
    if soft == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in misfits.most_common())
        raise UsageError(
            f"no captured reply fits its record ({reasons or 'no examples'}): captured tokens have to be, one by one, what "
            "the student is trained on; records made of parts of a reply (parsed JSON, trimmed text) need `synthgen train "
            f"score` instead. Otherwise: {WAY_OUT}"
        )
    return Labelled(tuple(out), soft, misfits)


def _soft_labels(
    example: Example, captures: Sequence[Capture], tokenizer: PreTrainedTokenizerBase, k: int
) -> SoftLabels | Misfit:
    if not captures:
        return "no_capture"
    ids = np.full((example.targets, k), NO_TOKEN, dtype=np.int32)
    logprobs = np.zeros((example.targets, k), dtype=np.float32)
    start, fits = 0, False
    left = list(captures)  # equal turns take equal captures in turn
    for span in example.spans:
        target = tuple(int(one) for one in example.input_ids[span.start : span.end])
        capture = next((one for one in left if _is_of(one, span, target)), None)
        if capture is not None:
            left.remove(capture)
            problem = _fill(ids[start:], logprobs[start:], capture, len(tokenizer))
            if problem is not None:
                return problem
            fits = True
        start += span.end - span.start
    return SoftLabels(ids, logprobs) if fits else _misfit(example, captures, tokenizer)


def _is_of(capture: Capture, span: Span, target: tuple[int, ...]) -> bool:
    """Servers that leave the end token out leave that position without a soft label."""
    return (
        capture.message in (None, span.message) and capture.ids != () and capture.ids in (target, target[:-1])
    )


def _fill(
    ids: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
    logprobs: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    capture: Capture,
    vocabulary: int,
) -> Misfit | None:
    """Write a capture's positions into the first rows; the token that was drawn is one of those known."""
    k = ids.shape[1]
    for at, (drawn, drawn_logprob) in enumerate(zip(capture.ids, capture.logprobs, strict=True)):
        known = {
            drawn: drawn_logprob,
            **dict(zip(capture.top_ids[at], capture.top_logprobs[at], strict=True)),
        }
        if any(not 0 <= one < vocabulary for one in known):
            return "unknown_id"
        values = list(known.values())
        if max(values) > 0 or sum(map(np.exp, values)) > 1 + _ROUNDING:
            return "invalid"
        likeliest = sorted(known.items(), key=lambda item: (-item[1], item[0]))[:k]
        ids[at, : len(likeliest)] = [one for one, _ in likeliest]
        logprobs[at, : len(likeliest)] = [value for _, value in likeliest]
    return None


def _misfit(example: Example, captures: Sequence[Capture], tokenizer: PreTrainedTokenizerBase) -> Misfit:
    """Whether the tokens differ or the words."""
    turns = {_text(example, span, tokenizer) for span in example.spans}
    said = {tokenizer.decode(list(capture.ids), skip_special_tokens=True) for capture in captures}
    return "other_split" if turns & said else "other_text"


def _text(example: Example, span: Span, tokenizer: PreTrainedTokenizerBase) -> str:
    text: str = tokenizer.decode(example.input_ids[span.start : span.end].tolist(), skip_special_tokens=True)
    return text
