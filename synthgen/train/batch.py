"""Examples to the tensors of one batch.

In: examples, or packed groups of them. Out: what the model is called with, `labels`, and the extras of the objective.
Padding is told by the attention mask and by labels of -100, never by the pad token's id, which may be the stop token's.

Axes: B rows of a batch (1 where rows are packed), T tokens, K alternatives of a soft label.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from synthgen.train.examples import IGNORED, NO_TOKEN, Example

__all__ = ["EXTRAS", "collate", "collate_packed"]

EXTRAS = ("kd_ids", "kd_logprobs", "weights")


def collate(examples: Sequence[Example], pad_id: int) -> dict[str, Tensor]:
    """One row an example, padded on the right.

    input_ids, labels, attention_mask: int64 (B, T); kd_ids int64 and kd_logprobs float32 (B, T, K), weights float32
    (B, T), where an example has them.
    """
    width = max(map(len, examples))
    rows = [[example] for example in examples]
    batch = _batch(rows, width, pad_id)
    mask = [[1] * len(example) + [0] * (width - len(example)) for example in examples]
    batch["attention_mask"] = torch.tensor(mask)
    return batch


def collate_packed(groups: Sequence[Sequence[Example]], pad_id: int) -> dict[str, Tensor]:
    """All groups in one row without padding; `position_ids` restart with each example, which is what separates them."""
    flat = [example for group in groups for example in group]
    batch = _batch([flat], sum(map(len, flat)), pad_id)
    batch["position_ids"] = torch.cat([torch.arange(len(example)) for example in flat])[None]
    return batch


def _batch(rows: Sequence[Sequence[Example]], width: int, pad_id: int) -> dict[str, Tensor]:
    input_ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    labels = np.full((len(rows), width), IGNORED, dtype=np.int64)
    weights = np.ones((len(rows), width), dtype=np.float32)
    members = [example for row in rows for example in row]
    alternatives = max((e.soft.ids_SK.shape[1] for e in members if e.soft is not None), default=0)
    kd_ids = np.full((len(rows), width, alternatives), NO_TOKEN, dtype=np.int64)
    kd_logprobs = np.zeros((len(rows), width, alternatives), dtype=np.float32)
    for at, row in enumerate(rows):
        start = 0
        for example in row:
            here = slice(start, start + len(example))
            input_ids[at, here], labels[at, here] = example.input_ids, example.labels
            weights[at, here] = example.weight
            if example.soft is not None:
                targets = start + np.flatnonzero(example.is_target)
                k = example.soft.ids_SK.shape[1]
                kd_ids[at, targets, :k] = example.soft.ids_SK
                kd_logprobs[at, targets, :k] = example.soft.logprobs_SK
            start += len(example)
    batch = {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}
    if alternatives:
        batch |= {"kd_ids": torch.from_numpy(kd_ids), "kd_logprobs": torch.from_numpy(kd_logprobs)}
    if any(example.weight != 1 for example in members):
        batch["weights"] = torch.from_numpy(weights)
    return batch
