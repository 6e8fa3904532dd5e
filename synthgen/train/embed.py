"""An embedding student: texts that its teacher finds alike should be alike to it.

In: texts, and the teacher's vector of each (any provider's; widths may differ), a base model. Out: a folder with the model
and how its vectors are pooled, and a report: the rank correlation of the cosines of student and teacher over pairs of
validation texts, before and after. Guarantees: only similarities are learnt, so the teacher's vectors need no projector
and no common vocabulary; padding changes no vector.

Axes: R texts of a batch, T tokens, H width.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.errors import UsageError
from synthgen.train.classify import padded
from synthgen.train.losses.hidden import relational_distance
from synthgen.train.metrics import Progress
from synthgen.train.steps import Steps

__all__ = ["EmbeddingReport", "EmbeddingSteps", "embed", "load_embedder", "save_embedder", "train_embedder"]

REPORT = "embedding.json"


@dataclass(frozen=True, slots=True)
class EmbeddingSteps:
    """How it is trained. A batch is what similarities are learnt within: larger is better."""

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-5
    max_length: int = 512
    seed: int = 0


@dataclass(frozen=True, slots=True)
class EmbeddingReport:
    """Rank correlations (Spearman) over all pairs of validation texts."""

    rows: int
    validation_rows: int
    losses: tuple[float, ...]
    correlation_before: float
    correlation_after: float
    pooling: str = "mean"


def load_embedder(base: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A base model without its head; `tokenizer` brings the pad token."""
    model = AutoModel.from_pretrained(base).float()
    model.config.pad_token_id = (
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    )
    return model


def embed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int = 512
) -> Tensor:
    """Mean of the last hidden states over each text's tokens: float32 (R, H).

    Raises:
        UsageError: a text is empty or longer than `max_length` tokens.
    """
    ids: list[list[int]] = tokenizer(list(texts))["input_ids"]
    if not all(0 < len(one) <= max_length for one in ids):
        raise UsageError(
            f"texts need 1 to {max_length} tokens: found {min(map(len, ids))} to {max(map(len, ids))}"
        )
    inputs = padded(ids, model)
    states = model(**inputs).last_hidden_state.float()
    weights = inputs["attention_mask"].unsqueeze(-1).float()
    pooled: Tensor = (states * weights).sum(1) / weights.sum(1)
    return pooled


def train_embedder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: tuple[Sequence[str], NDArray[np.float32]],
    validation: tuple[Sequence[str], NDArray[np.float32]],
    steps: EmbeddingSteps,
    out: Path | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> EmbeddingReport:
    """Train on texts and the teacher's vectors of them, and save to `out`.

    Raises:
        UsageError: not one vector for each text, or too few to have pairs.
    """
    for what, (texts, vectors) in (("training", train), ("validation", validation)):
        if len(texts) != len(vectors):
            raise UsageError(f"{what}: {len(texts)} texts with {len(vectors)} vectors: need one for each")
        if len(texts) < 3:
            raise UsageError(
                f"{what}: {len(texts)} texts, and similarities need 3 at least: bring more, or change `validation_share`"
            )
        if not np.isfinite(vectors).all():
            raise UsageError(
                f"{what}: a vector holds a number that is none (NaN or infinity): leave its text out"
            )
    before = _correlation(model, tokenizer, validation, steps)
    losses = _fit(model, tokenizer, train, steps, progress)
    after = _correlation(model, tokenizer, validation, steps)
    report = EmbeddingReport(len(train[0]), len(validation[0]), tuple(losses), before, after)
    if out is not None:
        save_embedder(model, tokenizer, report, out)
    return report


def save_embedder(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, report: EmbeddingReport, out: Path
) -> None:
    """What `AutoModel` loads, and beside it the report, which says how vectors are pooled."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_bytes(out / REPORT, orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2))


def _fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: tuple[Sequence[str], NDArray[np.float32]],
    steps: EmbeddingSteps,
    progress: Callable[[Progress], None] | None,
) -> list[float]:
    """Mean loss of every epoch. A last batch of one text has no pair and is left out of its epoch."""
    texts, vectors = train[0], torch.from_numpy(train[1])
    order = torch.Generator().manual_seed(steps.seed)
    torch.manual_seed(steps.seed)  # dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=steps.learning_rate)
    losses = []
    batches, rest = divmod(len(texts), steps.batch_size)
    per_epoch = batches + (rest > 1)
    told = Steps(per_epoch * steps.epochs, per_epoch, progress)
    model.train()
    for _ in range(steps.epochs):
        of_epoch = []
        for batch in torch.randperm(len(texts), generator=order).split(steps.batch_size):
            if len(batch) < 2:
                continue
            ours = embed(model, tokenizer, [texts[at] for at in batch.tolist()], max_length=steps.max_length)
            loss = relational_distance(ours, vectors[batch].to(ours.device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            of_epoch.append(loss.item())
            told.done(of_epoch[-1], 0)
        losses.append(float(np.mean(of_epoch)))
    return losses


def _correlation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: tuple[Sequence[str], NDArray[np.float32]],
    steps: EmbeddingSteps,
) -> float:
    model.eval()
    parts = []
    with torch.no_grad():
        for at in range(0, len(rows[0]), steps.batch_size):
            parts.append(
                embed(model, tokenizer, rows[0][at : at + steps.batch_size], max_length=steps.max_length)
            )
    ours, theirs = (_pairs(x) for x in (torch.cat(parts).cpu().numpy(), rows[1]))
    return float(np.corrcoef(_ranks(ours), _ranks(theirs))[0, 1])


def _pairs(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines of all pairs."""
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float64] = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return found


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts + 1) / 2)[inverse]
    return ranks
