"""The precision losses are computed in."""

import torch
from torch import Tensor

__all__ = ["widened"]


def widened(x: Tensor) -> Tensor:
    """`x` in float32 if it is of half precision; a log-softmax over 100,000 tokens in bfloat16 is right to 1 % at best."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
