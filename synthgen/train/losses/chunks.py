"""A loss over many positions in little memory.

Logits in float32, their softmax and its gradient take 3 x 4 bytes x V a position: 20 GB for 16,000 positions of a
vocabulary of 100,000. Computed some positions at a time, and again in the backward pass, they take that for one chunk.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["chunked"]


def chunked(loss: Callable[..., Tensor], *tensors: Tensor, positions: int) -> Tensor:
    """`loss(*tensors)`, computed for at most `positions` rows of every tensor at once.

    `loss` gives one value a row, and a row's value depends on that row alone. It may close over parameters (an output
    head applied to hidden states, so that the logits of all positions never exist together).

    Raises:
        ValueError: `positions` < 1.
    """
    if positions < 1:
        raise ValueError(f"{positions} positions at once: need at least 1")
    if tensors[0].shape[0] <= positions:
        return loss(*tensors)
    pieces = zip(*(torch.split(tensor, positions) for tensor in tensors), strict=True)
    return torch.cat([_again(loss, piece) for piece in pieces])


def _again(loss: Callable[..., Tensor], piece: tuple[Tensor, ...]) -> Tensor:
    """The loss of a piece, whose intermediate results are dropped and computed again in the backward pass."""
    if not torch.is_grad_enabled():
        return loss(*piece)
    result: Tensor = checkpoint(loss, *piece, use_reentrant=False)
    return result
