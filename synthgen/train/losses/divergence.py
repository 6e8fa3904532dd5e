"""Divergences between two whole distributions over one vocabulary, and cross-entropy.

In: logits of student and teacher with the same meaning for every column. Out: one loss a position. With a temperature t
both are softened and the loss is multiplied by t**2, which keeps the size of its gradient (Hinton et al. 2015,
"Distilling the knowledge in a neural network", section 2).
"""

import torch
from torch import Tensor
from torch.nn import functional

from synthgen.train.losses.precision import widened

__all__ = ["cross_entropy", "forward_kl", "jensen_shannon", "reverse_kl"]


def cross_entropy(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Minus the log probability of the label.

    labels_N: int64, every one a column of the logits.
    """
    return functional.cross_entropy(widened(logits_NV), labels_N, reduction="none")


def forward_kl(student_NV: Tensor, teacher_NV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student): the student has to cover everything its teacher would say.

    Raises:
        ValueError: the two have different columns, or the temperature is not above 0.
    """
    student, teacher = _log_softmax(student_NV, teacher_NV, temperature)
    return _kl(teacher, student) * temperature**2


def reverse_kl(student_NV: Tensor, teacher_NV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(student || teacher): the student may leave things out, but should say nothing its teacher would not.

    Raises:
        ValueError: the two have different columns, or the temperature is not above 0.
    """
    student, teacher = _log_softmax(student_NV, teacher_NV, temperature)
    return _kl(student, teacher) * temperature**2


def jensen_shannon(
    student_NV: Tensor, teacher_NV: Tensor, *, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """Both, to their mixture with share `beta` of the teacher; bounded by log 2 at 0.5 (and temperature 1).

    Divided by beta it nears the forward KL as beta goes to 0, by 1 - beta the reverse KL as it goes to 1.

    Raises:
        ValueError: beta is not inside 0..1, the columns differ, or the temperature is not above 0.

    Source: Agarwal et al. 2024, "On-policy distillation of language models" (generalised JSD).
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta {beta} is not inside 0..1: at its ends use forward_kl or reverse_kl")
    student, teacher = _log_softmax(student_NV, teacher_NV, temperature)
    share = torch.tensor(beta, dtype=student.dtype, device=student.device)
    mixture = torch.logaddexp(teacher + share.log(), student + torch.log1p(-share))
    return (beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)) * temperature**2


def _log_softmax(student_NV: Tensor, teacher_NV: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    if student_NV.shape != teacher_NV.shape:
        raise ValueError(
            f"student logits {tuple(student_NV.shape)} and teacher logits {tuple(teacher_NV.shape)} differ in shape"
        )
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} is not above 0")
    student, teacher = widened(student_NV), widened(teacher_NV)
    return (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)


def _kl(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    """KL(p || q) of log probabilities."""
    return functional.kl_div(q_NV, p_NV, reduction="none", log_target=True).sum(-1)
