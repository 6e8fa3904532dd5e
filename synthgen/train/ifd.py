"""Instruction-following difficulty: how much its prompt helps a checkpoint to an answer that is already there.

In: a dataset and a checkpoint. Out: the same rows with three columns, which `filter --score ifd` and `--by score:ifd` read:
`nll`, the mean negative log likelihood in nats of the last answer's tokens after their prompt, `nll_alone`, that of the same
tokens without it, and `ifd`, the first divided by the second (Li et al. 2023, "From Quantity to Quality", arXiv:2308.12032).
Guarantees: both passes score the very same ids; a row that cannot be scored keeps its place, has nulls and is counted with
its reason; what else stands in a row stays as it was.

Without its prompt means: after what opens the assistant's turn in the chat template, behind the token that begins every
text where the template writes one (the paper's code leaves `### Response:`). Where a template opens the turn with nothing
of its own, the tokenizer's first token stands there, else its stop token. The token that ends the turn is not counted.
Rejected: dividing perplexities, as the code of "Superfiltering" (arXiv:2402.00530) does: another score, another order.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset.files import BadRow, find_inputs, read_rows
from synthgen.dataset.whole import storage_errors, sync_folder, write_bytes
from synthgen.dataset.write import write_table
from synthgen.errors import UsageError
from synthgen.train.batch import collate
from synthgen.train.config import DataConfig
from synthgen.train.conversation import Conversation
from synthgen.train.examples import IGNORED, Example, Span
from synthgen.train.local_teacher import LocalTeacher, load_teacher
from synthgen.train.losses import cross_entropy
from synthgen.train.masks import fitting, mask
from synthgen.train.reading import read_dataset
from synthgen.train.score_folder import check_score_folder, has_columns, has_metadata
from synthgen.train.template import ChatFormat, chat_format
from synthgen.train.tokenizers import load_tokenizer
from synthgen.types import Message

__all__ = ["Difficulty", "Rated", "difficulties", "opening", "rate_dataset"]

_TEACHER = "ifd_of"


@dataclass(frozen=True, slots=True)
class Difficulty:
    """`nll` and `nll_alone`: nats a token of the answer, with and without its prompt."""

    nll: float
    nll_alone: float

    @property
    def ifd(self) -> float:
        """Near 1 and above: the prompt does not help."""
        return self.nll / self.nll_alone


@dataclass(frozen=True, slots=True)
class Rated:
    """How many rows have scores, how many of them an `ifd` below 1, and why others have none."""

    rows: int
    below_1: int
    refused: Counter[str]


def rate_dataset(dataset: Path, teacher: str, out: Path, *, data: DataConfig | None = None) -> Rated:
    """Write the rows of `dataset` with their scores to the folder `out`, file by file; `synthgen train score --ifd`.

    `data` decides what an answer is, as it does for the student; of each row the last one is scored.

    Raises:
        SourceError: no such dataset or checkpoint, or a row is no conversation.
        UsageError: the tokenizer has no usable chat template, no row can be scored, or `out` is a file, the dataset itself, or
            holds something else than earlier scores of it.
        StorageError: the disk refuses.
    """
    settings = data if data is not None else DataConfig()
    read = read_dataset(dataset, limit=settings.limit)
    sources = (
        {name: dataset / name for name in read.files}
        if dataset.is_dir()
        else {file.name: file for file in find_inputs([dataset])}
    )
    targets = {name: out / name.removesuffix(".gz") for name in sources}
    if any(target.resolve() == sources[name].resolve() for name, target in targets.items()):
        raise UsageError(f"{out}: holds the rows themselves; name another folder with -o")
    check_score_folder(out, set(targets.values()), _is_scored)
    format = chat_format(load_tokenizer(teacher), settings.chat_template)
    found, refused = difficulties(read.conversations, load_teacher(teacher), format, settings)
    if not found:
        raise UsageError(f"no row could be scored: {dict(refused)}")
    start, rows = 0, len(read.conversations)
    for name, source in sources.items():
        start += _write(source, targets[name], found, start, rows - start, teacher)
    return Rated(len(found), sum(one.ifd < 1 for one in found.values()), refused)


def difficulties(
    conversations: Iterable[Conversation],
    teacher: LocalTeacher,
    format: ChatFormat,
    data: DataConfig,
    *,
    rows: int = 8,
) -> tuple[dict[int, Difficulty], Counter[str]]:
    """Of each conversation, by its place; and the reasons of those without. `rows` are computed at once."""
    numbered = (replace(one, id=str(place)) for place, one in enumerate(conversations))
    refused: Counter[str] = Counter()
    whole: list[Example] = []
    for one in mask(numbered, format, data.model_copy(update={"train_on": "last"})):
        if not isinstance(one, Example):
            refused[one.reason] += 1
        elif one.part == "answer":
            words = _without_stop(one)
            if words is None:
                refused["one_token"] += 1  # the mean of one token tells chance, not difficulty
            else:
                whole.append(words)
    if data.max_length is not None and whole:
        whole, long = fitting(whole, data.max_length, drop=data.too_long == "drop")
        refused.update({"too_long": long} if long else {})
    before = opening(format)
    given = _means(whole, teacher, format, rows)
    alone = _means([_alone(example, before) for example in whole], teacher, format, rows)
    found = {}
    for identity, nll in given.items():
        one_alone = alone[identity]
        if math.isfinite(nll) and math.isfinite(one_alone) and one_alone > 0:
            found[int(identity)] = Difficulty(nll, one_alone)
        else:
            refused["no_ratio"] += 1  # a checkpoint that overflows, or is certain of every token
    return found, refused


def opening(format: ChatFormat) -> list[int]:
    """The ids an answer without its prompt stands behind; at least one."""
    asked = [Message("user", "Question?")]
    closed, opened = format.render(asked), format.render(asked, prompt=True)
    header = opened[len(closed) :] if opened.startswith(closed) else ""
    first = format.tokenizer.bos_token
    begin = first if isinstance(first, str) and opened.startswith(first) else ""
    ids, _ = format.encode([begin + header])[0]
    if ids:
        return ids
    known = format.tokenizer.bos_token_id
    return [format.stop_id if known is None else int(known)]


def _without_stop(example: Example) -> Example | None:
    """The example up to the end of its answer's words; None where they are fewer than two tokens."""
    (span,) = example.spans
    if span.end - span.start < 3:
        return None
    return Example(
        example.input_ids[: span.end - 1], (Span(span.start, span.end - 1, span.message),), example.id
    )


def _alone(example: Example, before: Sequence[int]) -> Example:
    (span,) = example.spans
    ids = np.concatenate([np.array(before, dtype=np.int32), example.input_ids[span.start : span.end]])
    return Example(ids, (Span(len(before), len(ids), span.message),), example.id)


def _means(
    examples: Sequence[Example], teacher: LocalTeacher, format: ChatFormat, rows: int
) -> dict[str, float]:
    """Of each example the mean over its targets, over the tokens of the tokenizer alone, as soft labels are."""
    ordered = sorted(examples, key=len, reverse=True)  # little padding; memory runs out at once, or never
    means: dict[str, float] = {}
    for start in range(0, len(ordered), rows):
        batch = ordered[start : start + rows]
        tensors = {name: one.to(teacher.model.device) for name, one in collate(batch, format.pad_id).items()}
        labels_BT = tensors.pop("labels")[:, 1:]
        targets_BT = labels_BT != IGNORED
        logits_NV = teacher(tensors).logits_BTV[:, :-1][targets_BT][:, : len(format.tokenizer)]
        losses = cross_entropy(logits_NV, labels_BT[targets_BT]).double()
        parts = losses.split([example.targets for example in batch])
        means |= {example.id: float(part.mean()) for example, part in zip(batch, parts, strict=True)}
    return means


# ---- the rows, with their scores


def _write(
    source: Path, target: Path, found: Mapping[int, Difficulty], start: int, most: int, teacher: str
) -> int:
    """The first `most` rows of a file, the first of which is row `start` of the dataset; returns how many it has."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".parquet":
        frame = pl.read_parquet(source, glob=False).head(most)
        scores = [_columns(found.get(start + place)) for place in range(frame.height)]
        schema = dict.fromkeys(_columns(None), pl.Float64())
        write_table(
            frame.with_columns(pl.DataFrame(scores, schema=schema).get_columns()),
            target,
            metadata={_TEACHER: teacher},
        )
        count = frame.height
    else:
        lines = [
            orjson.dumps({**row, **_columns(found.get(start + place))})
            for place, row in enumerate(islice(_json_rows(source), most))
        ]
        write_bytes(target, b"".join(line + b"\n" for line in lines))
        count = len(lines)
    sync_folder(target.parent)
    return count


def _is_scored(path: Path) -> bool:
    return has_metadata(path, _TEACHER) if path.suffix == ".parquet" else has_columns(path, _columns(None))


def _json_rows(source: Path) -> Iterator[Mapping[str, object]]:
    return (row for _, row in read_rows(source) if not isinstance(row, BadRow))


def _columns(one: Difficulty | None) -> dict[str, float | None]:
    if one is None:
        return {"ifd": None, "nll": None, "nll_alone": None}
    return {"ifd": one.ifd, "nll": one.nll, "nll_alone": one.nll_alone}
