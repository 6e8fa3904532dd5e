"""What a loss gets and gives: the interface between the engine and `losses`.

In: one forward pass of the student over a batch. Out: the loss as a scalar tensor, and numbers to log.
An objective divides by `targets`, not by the targets it sees: that is the number of the whole optimiser step, over all
accumulated batches and processes, without which gradient accumulation would change the loss.

Axes: B rows of a batch, T tokens, V vocabulary, K alternatives of a soft label, D hidden width.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Protocol

from torch import Tensor

from synthgen.dataclasses import dataclass

__all__ = ["Forward", "Loss", "Objective"]


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward pass.

    logits_BTV: position t predicts token t + 1, so it belongs to `labels_BT[:, 1:]`.
    labels_BT: the ids of the targets in their places, -100 elsewhere; not shifted.
    targets: number of targets of the whole optimiser step; in evaluation, of this batch.
    inputs: what the model was called with: `input_ids`, and `attention_mask` or, packed, `position_ids`.
    extras: what the examples brought along, in their places and not shifted: `kd_ids` (B, T, K; -1: none) and
      `kd_logprobs` (B, T, K), `weights` (B, T).
    hidden: hidden states of every layer (B, T, D), embeddings first, where the objective asked for them.
    """

    logits_BTV: Tensor
    labels_BT: Tensor
    targets: Tensor | int
    inputs: Mapping[str, Tensor]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    hidden: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """The scalar to minimise, and its parts as they should be logged: sums over this batch divided by `targets`."""

    value: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A loss the engine can train on. `needs_hidden`: it wants the student's hidden states."""

    needs_hidden: bool

    def __call__(self, forward: Forward) -> Loss:
        """The loss of one batch."""
