"""What a distillation loss must satisfy, as numbers that are 0 where it does.

In: logits (and where they are). Out: how far from right. Guarantee: no measure can be negative, and none is NaN where a
value is: a loss that is not a number measures infinity.

Axes: N positions, V vocabulary, K stored tokens.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from synthgen.train.losses import chunked, forward_kl, topk_kl

__all__ = ["above_exact", "chunk_error", "exactness_error", "gradient_error", "monotony_error", "stored"]

TopK = Callable[[Tensor, Tensor, Tensor], Tensor]
_STEP = 1e-6  # of central differences in float64: rounding and curvature are both about 1e-10


def stored(teacher_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What a capture of the `k` likeliest tokens would keep: ids and logprobs, both (N, K)."""
    top = teacher_NV.log_softmax(-1).topk(k)
    return top.indices, top.values


def gradient_error(loss: Callable[[Tensor], Tensor], at_NV: Tensor) -> float:
    """Largest difference between the gradient of the summed loss and central differences; float64 alone is meaningful."""
    leaf = at_NV.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    flat, numeric = at_NV.flatten(), torch.empty_like(at_NV).flatten()
    with torch.no_grad():
        for place in range(flat.numel()):
            moved = torch.zeros_like(flat)
            moved[place] = _STEP
            up, down = (loss((flat + sign * moved).view_as(at_NV)).sum() for sign in (1, -1))
            numeric[place] = (up - down) / (2 * _STEP)
    return _largest(gradient.flatten() - numeric)


def above_exact(student_NV: Tensor, teacher_NV: Tensor, ks: Sequence[int], loss: TopK = topk_kl) -> float:
    """How far the top-k loss is above the divergence over the whole vocabulary, at worst."""
    exact_N = forward_kl(student_NV, teacher_NV)
    return max(_largest((loss(student_NV, *stored(teacher_NV, k)) - exact_N).clamp(min=0)) for k in ks)


def monotony_error(student_NV: Tensor, teacher_NV: Tensor, ks: Sequence[int], loss: TopK = topk_kl) -> float:
    """How much the top-k loss falls from one k to the next larger one, at worst."""
    by_k = [loss(student_NV, *stored(teacher_NV, k)) for k in ks]
    return max(_largest((fewer - more).clamp(min=0)) for fewer, more in pairwise(by_k))


def exactness_error(student_NV: Tensor, teacher_NV: Tensor, loss: TopK = topk_kl) -> float:
    """Difference from the whole divergence where all tokens but one are stored."""
    lumped_N = loss(student_NV, *stored(teacher_NV, teacher_NV.shape[-1] - 1))
    return _largest(lumped_N - forward_kl(student_NV, teacher_NV))


def chunk_error(student_NV: Tensor, teacher_NV: Tensor, *, k: int, positions: int) -> float:
    """Difference of loss and gradient, computed `positions` at a time instead of at once."""
    ids_NK, logprobs_NK = stored(teacher_NV, k)
    found = []
    for size in (len(student_NV), positions):
        leaf = student_NV.clone().requires_grad_()
        loss_N = chunked(topk_kl, leaf, ids_NK, logprobs_NK, positions=size)
        (gradient,) = torch.autograd.grad(loss_N.sum(), leaf)
        found.append((loss_N.detach(), gradient))
    (whole, whole_gradient), (parts, parts_gradient) = found
    return max(_largest(whole - parts), _largest(whole_gradient - parts_gradient))


def _largest(values: Tensor) -> float:
    found = float(values.abs().max())
    return math.inf if math.isnan(found) else found
