"""Soft labels from an open-weight teacher, for answers that are already there.

In: conversations and a checkpoint. Out: rows of the logprobs sidecar, one for each assistant turn, as a capturing teacher
would have left them. One forward pass over each conversation: scoring reads the answer at once, where generating writes it
token by token. Guarantees: the ids are the teacher's own encoding of the answer, the end token included; logprobs are
computed in float32, over the tokens of its tokenizer alone (embeddings are padded to round sizes).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from synthgen.dataclasses import dataclass
from synthgen.dataset.write import write_parquet
from synthgen.errors import StorageError, UsageError
from synthgen.schema import RecordShape, logprobs_schema
from synthgen.train.batch import collate
from synthgen.train.config import DataConfig
from synthgen.train.conversation import Conversation
from synthgen.train.examples import IGNORED, Example
from synthgen.train.local_teacher import LocalTeacher, load_teacher
from synthgen.train.masks import fitting, mask
from synthgen.train.score_folder import check_score_folder, has_metadata
from synthgen.train.soft_labels import scored_step
from synthgen.train.template import ChatFormat, chat_format
from synthgen.train.tokenizers import load_tokenizer, tokenizer_digest
from synthgen.types import digest

__all__ = ["Scored", "score", "score_conversations", "write_scores"]

_FILE, _DIGEST = "score-00000.parquet", "tokenizer_sha256"


@dataclass(frozen=True, slots=True)
class Scored:
    """How many turns were scored, and why conversations were not."""

    turns: int
    refused: Counter[str]


def score_conversations(
    conversations: Iterable[Conversation],
    teacher: str,
    out: Path,
    *,
    k: int = 20,
    data: DataConfig | None = None,
) -> Scored:
    """Score every answer with the checkpoint `teacher` and write the sidecar to `out`; what `synthgen train score` does.

    `data` decides what the answers are, as it does for the student: use the student's section.

    Raises:
        SourceError: no such checkpoint.
        UsageError: its tokenizer has no usable chat template, rows are longer than `data.max_length`, or `out` is a file or
            holds something else than earlier scores.
        StorageError: the disk refuses.
    """
    check_score_folder(out, {out / _FILE}, lambda path: has_metadata(path, _DIGEST))
    settings = data if data is not None else DataConfig()
    format = chat_format(load_tokenizer(teacher), settings.chat_template)
    made: list[Example] = []
    refused: Counter[str] = Counter()
    for one in mask(conversations, format, settings):
        if isinstance(one, Example):
            made.append(one)
        else:
            refused[one.reason] += 1
    if settings.max_length is not None:
        made, long = fitting(made, settings.max_length, drop=settings.too_long == "drop")
        refused.update({"too_long": long} if long else {})
    if not made:
        raise UsageError(f"no conversation could be scored: {dict(refused)}")
    if not 1 <= k <= len(format.tokenizer):  # before a folder is made
        raise UsageError(f"k = {k}: the teacher has {len(format.tokenizer):,} tokens")
    made.sort(key=len, reverse=True)  # batches without much padding; memory runs out at once, or never
    turns = write_scores(score(made, load_teacher(teacher), format, name=teacher, k=k), out, format)
    return Scored(turns, refused)


def score(
    examples: Iterable[Example],
    teacher: LocalTeacher,
    format: ChatFormat,
    *,
    name: str,
    k: int,
    rows: int = 8,
) -> Iterator[pl.DataFrame]:
    """Frames of `logprobs_schema`: for each target the `k` likeliest tokens of `teacher`, whose `format` it is.

    `name` is what the teacher is called: its hub id or folder, whose tokenizer the ids are of. `rows` conversations are
    computed at once; those of like length in one batch are quickest.

    Raises:
        UsageError: `k` is not in 1..the size of the vocabulary.
    """
    if not 1 <= k <= len(format.tokenizer):
        raise UsageError(f"k = {k}: the teacher has {len(format.tokenizer):,} tokens")
    batch: list[Example] = []
    texts = _Texts(format)
    for example in examples:
        batch.append(example)
        if len(batch) == rows:
            yield _frame(batch, teacher, format, texts, name, k)
            batch = []
    if batch:
        yield _frame(batch, teacher, format, texts, name, k)


def write_scores(frames: Iterable[pl.DataFrame], folder: Path, format: ChatFormat) -> int:
    """Write scores as a folder of sidecar files that carry the tokenizer's digest; returns how many rows.

    Raises:
        UsageError: `folder` is a file.
        StorageError: the disk refuses.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error.strerror}") from error
    whole = pl.concat([pl.DataFrame(schema=logprobs_schema()), *frames])
    metadata = {_DIGEST: tokenizer_digest(format.tokenizer)}
    write_parquet(whole, folder / _FILE, table="logprobs", shape=RecordShape(), metadata=metadata)
    return whole.height


class _Texts:
    """Texts of tokens, each decoded once."""

    def __init__(self, format: ChatFormat) -> None:
        self._tokenizer = format.tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, ids: Sequence[int]) -> list[str]:
        for one in ids:
            if one not in self._known:
                self._known[one] = self._tokenizer.decode([one])
        return [self._known[one] for one in ids]


def _frame(
    batch: Sequence[Example], teacher: LocalTeacher, format: ChatFormat, texts: _Texts, name: str, k: int
) -> pl.DataFrame:
    tensors = collate([_bare(example) for example in batch], format.pad_id)
    labels_bt = tensors["labels"][:, 1:]
    device = teacher.model.device
    inputs = {key: tensors[key].to(device) for key in ("input_ids", "attention_mask")}
    targets_bt = labels_bt != IGNORED
    logits_nv = teacher(inputs).logits_BTV[:, :-1][targets_bt.to(device)]
    top, drawn_n = _likeliest(logits_nv, labels_bt[targets_bt].to(device), len(format.tokenizer), k)
    top_ids, top_logprobs, drawn = top.indices.tolist(), top.values.tolist(), drawn_n.tolist()
    rows, start = [], 0
    for example in batch:
        for span in example.spans:
            here = slice(start, start + span.end - span.start)
            start = here.stop
            ids = example.input_ids[span.start : span.end].tolist()
            rows.append(
                {
                    "id": example.id,
                    "step": scored_step(span.message),
                    "request_key": digest(["score", name, example.id, span.message]),
                    "teacher": name,
                    "model": name,
                    "served_model": None,
                    "tokenizer": name,
                    "ids_complete": True,
                    "tokens": texts(ids),
                    "token_bytes": [None] * len(ids),
                    "token_ids": ids,
                    "logprobs": drawn[here],
                    "top_tokens": [texts(one) for one in top_ids[here]],
                    "top_ids": top_ids[here],
                    "top_logprobs": top_logprobs[here],
                }
            )
    return pl.DataFrame(rows, schema=logprobs_schema())


def _bare(example: Example) -> Example:
    return Example(example.input_ids, example.spans)


def _likeliest(
    logits_nv: Tensor, labels_n: Tensor, tokens: int, k: int
) -> tuple[torch.return_types.topk, Tensor]:
    logprobs_nv = logits_nv[:, :tokens].float().log_softmax(-1)
    top = logprobs_nv.topk(min(k, logprobs_nv.shape[-1]))
    return top, logprobs_nv.gather(-1, labels_n.unsqueeze(-1)).squeeze(-1)
