"""Distillation losses: pure functions from tensors to one loss a position.

In: logits or hidden states of a student, and what a teacher left: stored top-k logprobs, logits, hidden states. Out: a
loss for every position (or one number for a batch of vectors), not reduced, so that the caller decides what one token
counts. Guarantees: half precision is computed in float32, doubles stay doubles; a position's loss depends on that
position alone (padding and order of a batch change nothing); gradients are right to `gradcheck`.
Rejected: renormalising a stored top-k to 1, as other trainers do. For 5 stored tokens of 1,000 its gradient has a cosine
of 0.72 with that of the whole divergence, with a bucket for the rest 0.93 (`tests/test_losses.py`, student at KL 0.9);
for one stored token it has no gradient at all.

Axes: B rows of a batch, T positions of a row, N positions (any), V vocabulary, K stored alternatives, R vectors of a
batch, H width of the student's hidden states, G width of the teacher's.
"""

from synthgen.train.losses.chunks import chunked
from synthgen.train.losses.divergence import cross_entropy, forward_kl, jensen_shannon, reverse_kl
from synthgen.train.losses.hidden import feature_distance, layer_pairs, projector, relational_distance
from synthgen.train.losses.topk import topk_kl

__all__ = [
    "chunked",
    "cross_entropy",
    "feature_distance",
    "forward_kl",
    "jensen_shannon",
    "layer_pairs",
    "projector",
    "relational_distance",
    "reverse_kl",
    "topk_kl",
]
