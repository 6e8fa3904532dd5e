"""A classifier as the student: an encoder or a causal model with a head, trained on what a teacher thinks of each class.

In: rows of text with a distribution over classes (`class_labels`), a base model. Out: a folder that
`AutoModelForSequenceClassification` loads, calibrated, and a report. Guarantees: soft labels are whole distributions, so
cross-entropy with them is the exact KL but for a constant; the temperature is folded into the last linear layer, so that
everybody who loads the model gets calibrated probabilities without knowing of it; it is fitted on the validation rows
alone, and figures on those rows are called what they are.
Rejected: the engine of the language-model students; nothing of its masks, packing and templates applies.

Axes: B rows of a batch, C classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_cosine_schedule_with_warmup,
)

from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.errors import SourceError, UsageError
from synthgen.train.calibration import calibration_error, fit_temperature
from synthgen.train.losses.precision import widened
from synthgen.train.metrics import Progress
from synthgen.train.steps import Steps

__all__ = [
    "ClassifierReport",
    "ClassifierSteps",
    "Row",
    "load_classifier",
    "padded",
    "save_classifier",
    "train_classifier",
]

REPORT = "classifier.json"


@dataclass(frozen=True, slots=True)
class Row:
    """A text and its distribution over the classes."""

    text: str
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if min(self.probabilities) < 0 or abs(sum(self.probabilities) - 1) > 1e-6:
            raise ValueError("the probabilities of the classes are not a distribution")


@dataclass(frozen=True, slots=True)
class ClassifierSteps:
    """How it is trained. Texts longer than `max_length` tokens are an error: nothing is cut."""

    epochs: int = 3
    batch_size: int = 16
    learning_rate: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_length: int = 512
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ClassifierReport:
    """`accuracy`, `error_before` and `error_after` (expected calibration error) are of the validation rows, against the
    likeliest class of their labels; the temperature was fitted on them too."""

    classes: tuple[str, ...]
    rows: int
    validation_rows: int
    losses: tuple[float, ...]
    accuracy: float
    chance: float
    temperature: float
    error_before: float
    error_after: float


def load_classifier(base: str, classes: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A base model with a fresh head for the classes.

    Raises:
        UsageError: fewer than two classes, or one twice.
        SourceError: no such base, or its architecture has no classification head.
    """
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise UsageError(f"{len(classes)} classes: a classifier needs two or more, each once")
    try:
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(classes))
    except (OSError, ValueError) as error:
        raise SourceError(f"{base}: cannot be loaded as a classifier: {error}") from error
    model.config.id2label = dict(enumerate(classes))
    model.config.label2id = {name: at for at, name in enumerate(classes)}
    # A causal model reads the class off its last token, which it finds by the pad token.
    model.config.pad_token_id = (
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    )
    return model.float()


def train_classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Row],
    validation: Sequence[Row],
    steps: ClassifierSteps,
    out: Path | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> ClassifierReport:
    """Train, calibrate on the validation rows, and save to `out`.

    Raises:
        UsageError: no rows, or texts that are too long.
    """
    if not train or not validation:
        raise UsageError("a classifier needs rows to train on and rows to calibrate on")
    ids, held_out = (_encoded(rows, tokenizer, steps.max_length) for rows in (train, validation))
    losses = _fit(model, ids, train, steps, progress)
    logits = _logits(model, held_out, steps.batch_size)
    labels = np.array([int(np.argmax(row.probabilities)) for row in validation])
    temperature = fit_temperature(logits, labels)
    _fold(model, temperature)
    report = ClassifierReport(
        classes=tuple(model.config.id2label[at] for at in range(logits.shape[1])),
        rows=len(train),
        validation_rows=len(validation),
        losses=tuple(losses),
        accuracy=float((logits.argmax(axis=1) == labels).mean()),
        chance=float(np.bincount(labels).max() / len(labels)),
        temperature=temperature,
        error_before=calibration_error(logits, labels),
        error_after=calibration_error(logits / temperature, labels),
    )
    if out is not None:
        save_classifier(model, tokenizer, report, out)
    return report


def save_classifier(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, report: ClassifierReport, out: Path
) -> None:
    """What `AutoModelForSequenceClassification` loads, and the report beside it."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_bytes(out / REPORT, orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2))


def _encoded(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[list[int]]:
    ids: list[list[int]] = tokenizer([row.text for row in rows])["input_ids"]
    longest = max(map(len, ids))
    if longest > max_length:
        count = sum(len(one) > max_length for one in ids)
        raise UsageError(
            f"{count} of {len(ids)} texts have more than {max_length} tokens, the longest {longest}"
        )
    if not all(ids):
        raise UsageError(f"{sum(not one for one in ids)} of {len(ids)} texts are empty")
    return ids


def _fit(
    model: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    rows: Sequence[Row],
    steps: ClassifierSteps,
    progress: Callable[[Progress], None] | None,
) -> list[float]:
    """Mean loss of every epoch."""
    order = torch.Generator().manual_seed(steps.seed)
    torch.manual_seed(steps.seed)  # dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=steps.learning_rate, weight_decay=steps.weight_decay)
    per_epoch = -(-len(rows) // steps.batch_size)
    total = per_epoch * steps.epochs
    schedule = get_cosine_schedule_with_warmup(optimizer, int(total * steps.warmup), total)
    labels = torch.tensor([row.probabilities for row in rows])
    losses = []
    told = Steps(total, per_epoch, progress)
    model.train()
    for _ in range(steps.epochs):
        summed = 0.0
        for batch in torch.randperm(len(rows), generator=order).split(steps.batch_size):
            logits_bc = model(**padded([ids[at] for at in batch.tolist()], model)).logits
            loss = soft_cross_entropy(logits_bc, labels[batch].to(logits_bc.device)).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            mean = loss.item()
            summed += mean * len(batch)
            told.done(mean, sum(len(ids[at]) for at in batch.tolist()))
        losses.append(summed / len(rows))
    return losses


def soft_cross_entropy(logits_bc: Tensor, labels_bc: Tensor) -> Tensor:
    """Cross-entropy with a distribution: its KL to the model's plus its own entropy, which no training changes."""
    return -(labels_bc * widened(logits_bc).log_softmax(-1)).sum(-1)


def padded(ids: Sequence[Sequence[int]], model: PreTrainedModel) -> dict[str, Tensor]:
    """Texts of token ids as one batch on the model's device, padded on the right."""
    width, pad = max(map(len, ids)), int(model.config.pad_token_id or 0)
    rows = torch.tensor([[*one, *[pad] * (width - len(one))] for one in ids])
    mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in ids])
    return {"input_ids": rows.to(model.device), "attention_mask": mask.to(model.device)}


def _logits(model: PreTrainedModel, ids: Sequence[Sequence[int]], batch_size: int) -> NDArray[np.float64]:
    model.eval()
    with torch.no_grad():
        parts = [
            model(**padded(ids[at : at + batch_size], model)).logits.double().cpu()
            for at in range(0, len(ids), batch_size)
        ]
    found: NDArray[np.float64] = torch.cat(parts).numpy()
    return found


def _fold(model: PreTrainedModel, temperature: float) -> None:
    """Divide the last linear layer by the temperature: its output is the logits."""
    *_, head = _heads(model)
    with torch.no_grad():
        head.weight /= temperature
        if head.bias is not None:
            head.bias /= temperature


def _heads(model: PreTrainedModel) -> Iterator[nn.Linear]:
    """Linear layers as wide as there are classes, in order; the last one is the head."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels
    ]
    if not found:
        raise UsageError(
            f"{type(model).__name__}: its head is no linear layer, so a temperature cannot be kept in it"
        )
    return iter(found)
