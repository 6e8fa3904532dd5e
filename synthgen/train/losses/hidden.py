"""Distances between what two networks hold inside: hidden states, and how vectors of a batch relate.

In: vectors of student and teacher for the same positions or texts. Out: a distance that no scaling of either side
changes, because the sizes of hidden states differ a thousandfold between models, layers and a few odd channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthgen.train.losses.precision import widened

__all__ = ["feature_distance", "layer_pairs", "projector", "relational_distance"]


def projector(width: int, teacher_width: int, pairs: int) -> nn.ModuleList:
    """Linear maps from the student's width to its teacher's, one for each pair of layers; none where they are equal.

    Trained with the student and thrown away after it.

    Source: Romero et al. 2015, "FitNets" (hint regressor).
    """
    same = width == teacher_width
    return nn.ModuleList(
        nn.Identity() if same else nn.Linear(width, teacher_width, bias=False) for _ in range(pairs)
    )


def layer_pairs(student_layers: int, teacher_layers: int, pairs: int) -> list[tuple[int, int]]:
    """Layers to compare, from 1 (the first layer's output): evenly spread, the last ones always a pair.

    Raises:
        ValueError: more pairs than the student has layers, or none.
    """
    if not 1 <= pairs <= student_layers:
        raise ValueError(f"{pairs} pairs of layers: the student has {student_layers}")
    return [
        (student_layers * (n + 1) // pairs, max(teacher_layers * (n + 1) // pairs, 1)) for n in range(pairs)
    ]


def feature_distance(student_NG: Tensor, teacher_NG: Tensor) -> Tensor:
    """Squared distance of the two directions, 0..4, for each position.

    Source: Sun et al. 2019, "Patient knowledge distillation for BERT model compression" (normalised states).
    """
    student = functional.normalize(widened(student_NG), dim=-1)
    teacher = functional.normalize(widened(teacher_NG), dim=-1)
    return (student - teacher).square().sum(-1)


def relational_distance(student_RH: Tensor, teacher_RG: Tensor) -> Tensor:
    """Mean squared difference of the cosines of all pairs of vectors, 0..4: one number for a batch.

    Widths may differ, as may rotations: what is learnt is who is near whom. A batch of one vector gives 0.

    Source: Tung and Mori 2019, "Similarity-preserving knowledge distillation", over cosines.
    """
    rows = student_RH.shape[0]
    if rows < 2:
        return student_RH.sum() * 0.0
    difference_RR = _cosines(student_RH) - _cosines(teacher_RG).to(widened(student_RH).dtype)
    others_RR = ~torch.eye(rows, dtype=torch.bool, device=student_RH.device)
    return difference_RR[others_RR].square().mean()


def _cosines(x_RH: Tensor) -> Tensor:
    unit = functional.normalize(widened(x_RH), dim=-1)
    return unit @ unit.T
