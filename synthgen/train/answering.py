"""What a checkpoint writes, and how likely it finds what its teacher wrote.

In: a causal language model and examples whose last span is one answer. Out: greedy answers as token ids, and the mean
negative log likelihood of the teacher's tokens. Guarantees: every prompt is the very tokens the student was trained on;
batches and their order change no answer but for rounding; padding, on the left, is told by the attention mask alone.

Axes: B prompts of a batch, T tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from transformers import PreTrainedModel

from synthgen.dataclasses import dataclass
from synthgen.train.batch import collate
from synthgen.train.examples import IGNORED, Example
from synthgen.train.losses import cross_entropy

__all__ = ["Written", "nll", "write_answers"]


@dataclass(frozen=True, slots=True)
class Written:
    """An answer without the token that ended it; `finished`: there was one before the limit."""

    ids: tuple[int, ...]
    finished: bool


def write_answers(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: Iterable[int],
    pad_id: int,
    max_tokens: int,
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> list[Written]:
    """Greedy answers to token ids, in the order of the prompts; those of like length are computed together."""
    stops = frozenset(stop_ids)
    order = sorted(range(len(prompts)), key=lambda at: (-len(prompts[at]), at))
    answers: dict[int, Written] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        width = len(prompts[batch[0]])
        padding = [width - len(prompts[at]) for at in batch]
        ids_BT = torch.tensor(
            [[*[pad_id] * left, *prompts[at]] for at, left in zip(batch, padding, strict=True)]
        )
        mask_BT = torch.tensor([[*[0] * left, *[1] * (width - left)] for left in padding])
        with torch.inference_mode():
            out_BT = model.generate(
                input_ids=ids_BT.to(model.device),
                attention_mask=mask_BT.to(model.device),
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=sorted(stops),
                pad_token_id=pad_id,
            )
        for at, row in zip(batch, out_BT[:, width:].tolist(), strict=True):
            end = next((place for place, token in enumerate(row) if token in stops), None)
            answers[at] = Written(tuple(row[:end]), end is not None)
        if done is not None:
            done(len(answers))
    return [answers[at] for at in range(len(prompts))]


def nll(model: PreTrainedModel, examples: Sequence[Example], *, pad_id: int, batch_size: int = 8) -> float:
    """Mean over all targets of the examples, in nats a token."""
    total, count = 0.0, 0
    for batch in _batches(examples, batch_size):
        tensors = {name: tensor.to(model.device) for name, tensor in collate(batch, pad_id).items()}
        labels_BT = tensors.pop("labels")[:, 1:]
        targets_BT = labels_BT != IGNORED
        with torch.inference_mode():
            logits_NV = model(**tensors, use_cache=False).logits[:, :-1][targets_BT]
            total += float(cross_entropy(logits_NV, labels_BT[targets_BT]).double().sum())
        count += int(targets_BT.sum())
    return total / count


def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    ordered = sorted(examples, key=len, reverse=True)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]
