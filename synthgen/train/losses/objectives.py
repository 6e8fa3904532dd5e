"""The losses of a student's file as one objective the engine calls.

In: `LossConfig`, and the teacher that runs beside the student where one does. Out: an `Objective`. A position counts

    (1 - kd.weight - logits.weight) * cross-entropy + kd.weight * top-k KL + logits.weight * divergence

and without stored tokens the cross-entropy takes the share of the top-k KL: a label is a teacher who is sure, so all
positions weigh the same. Features and relations are other units and are added. Guarantees: sums over positions divided
by the targets of the whole step, so that accumulation changes nothing (but for relations, which exist within a batch
alone); padding and order of rows change nothing; only targets are widened to float32, and in chunks.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.train.examples import IGNORED, NO_TOKEN
from synthgen.train.losses.chunks import chunked
from synthgen.train.losses.config import LogitConfig, LossConfig
from synthgen.train.losses.divergence import cross_entropy, forward_kl, jensen_shannon, reverse_kl
from synthgen.train.losses.hidden import feature_distance, layer_pairs, projector, relational_distance
from synthgen.train.losses.topk import topk_kl
from synthgen.train.objective import Forward, Loss

__all__ = ["Distillation", "Seen", "Teacher"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a teacher made of a batch: its logits, and the hidden states of every layer, embeddings first."""

    logits_BTV: Tensor  # axes
    hidden: tuple[Tensor, ...]


class Teacher(Protocol):
    """A model that runs beside the student; `width` is that of its hidden states."""

    width: int
    layers: int

    def __call__(self, inputs: Mapping[str, Tensor], *, hidden: bool) -> Seen:
        """Its view of a batch, without gradients; `hidden`: with hidden states."""


class Distillation:
    """An `Objective`. `maps` holds what is trained beside the student (projectors), None where nothing is."""

    def __init__(
        self, config: LossConfig, *, teacher: Teacher | None = None, width: int = 0, layers: int = 0
    ) -> None:
        """`width` and `layers` are the student's, needed for features alone."""
        if config.needs_teacher and teacher is None:
            raise ValueError("these losses need a teacher")
        self.config = config
        self.teacher = teacher
        self.needs_hidden = config.needs_hidden
        self.pairs: list[tuple[int, int]] = []
        self.maps: nn.ModuleList | None = None
        if config.features is not None and teacher is not None:
            if config.features.layers > layers:
                raise UsageError(f"loss.features.layers = {config.features.layers}: the student has {layers}")
            self.pairs = layer_pairs(layers, teacher.layers, config.features.layers)
            maps = projector(width, teacher.width, len(self.pairs))
            self.maps = maps if any(True for _ in maps.parameters()) else None
            self._maps = maps

    def __call__(self, forward: Forward) -> Loss:
        """The loss of one batch.

        Raises:
            UsageError: relations are asked for in packed sequences, whose rows are no texts.
        """
        targets_BT = forward.labels_BT[:, 1:] != IGNORED
        seen = None if self.teacher is None else self.teacher(forward.inputs, hidden=self.needs_hidden)
        weights = forward.extras.get("weights")
        weight_N = None if weights is None else weights[:, 1:][targets_BT]
        value, parts = self._tokens(forward, seen, targets_BT, weight_N)
        if self.config.features is not None and seen is not None:
            part = self._features(forward, seen, targets_BT, weight_N)
            value, parts["features"] = value + self.config.features.weight * part, part
        if self.config.relations is not None and seen is not None:
            part = self._relations(forward, seen, targets_BT)
            value, parts["relations"] = value + self.config.relations.weight * part, part
        return Loss(value, {name: part.detach() for name, part in parts.items()})

    def _tokens(
        self, forward: Forward, seen: Seen | None, targets_BT: Tensor, weight_N: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        kd, logits = self.config.kd, self.config.logits
        tensors = [forward.logits_BTV[:, :-1][targets_BT], forward.labels_BT[:, 1:][targets_BT].long()]
        if kd is not None and "kd_ids" in forward.extras:
            tensors += [forward.extras[name][:, 1:][targets_BT] for name in ("kd_ids", "kd_logprobs")]
        else:
            kd = None
        if logits is not None and seen is not None:
            tensors.append(seen.logits_BTV[:, :-1][targets_BT])

        def terms(logits_NV: Tensor, labels_N: Tensor, *targets: Tensor) -> Tensor:
            ce_N = cross_entropy(logits_NV, labels_N)
            kl_N = divergence_N = torch.zeros_like(ce_N)
            if kd is not None:
                kl_N = topk_kl(logits_NV, targets[0], targets[1])
            if logits is not None and seen is not None:
                divergence_N = _divergence(logits_NV, targets[-1], logits)
            return torch.stack((ce_N, kl_N, divergence_N), dim=-1)

        ce_N, kl_N, divergence_N = chunked(terms, *tensors, positions=self.config.positions).unbind(-1)
        soft_N = (tensors[2] != NO_TOKEN).any(-1) if kd is not None else torch.zeros_like(ce_N)
        kd_N = soft_N * (0.0 if kd is None else kd.weight)
        share = 0.0 if logits is None else logits.weight
        blend_N = (1 - kd_N - share) * ce_N + kd_N * kl_N + share * divergence_N

        def mean(values_N: Tensor) -> Tensor:
            return (values_N if weight_N is None else weight_N * values_N).sum() / forward.targets

        parts = {"ce": mean(ce_N)}
        if kd is not None:
            parts["kd"] = mean(kl_N)
        if logits is not None:
            parts["logits"] = mean(divergence_N)
        return mean(blend_N), parts

    def _features(self, forward: Forward, seen: Seen, targets_BT: Tensor, weight_N: Tensor | None) -> Tensor:
        states = _hidden(forward)
        total = states[0].new_zeros(())
        for number, (layer, teacher_layer) in enumerate(self.pairs):
            mapped = self._maps[number](states[layer][:, :-1][targets_BT])
            distance_N = feature_distance(mapped, seen.hidden[teacher_layer][:, :-1][targets_BT])
            total = total + (distance_N if weight_N is None else weight_N * distance_N).sum()
        return total / len(self.pairs) / forward.targets

    def _relations(self, forward: Forward, seen: Seen, targets_BT: Tensor) -> Tensor:
        if "position_ids" in forward.inputs:
            raise UsageError("loss.relations compares rows: it cannot be used with data.packing")
        ours, theirs = (_pooled(states[-1][:, :-1], targets_BT) for states in (_hidden(forward), seen.hidden))
        return relational_distance(ours, theirs) * targets_BT.sum() / forward.targets


def _hidden(forward: Forward) -> tuple[Tensor, ...]:
    if forward.hidden is None:
        raise ValueError("the objective asked for hidden states")
    return forward.hidden


def _pooled(states_BTH: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the masked positions of each row that has one."""
    rows_B = mask_BT.any(-1)
    weights_BT = mask_BT.to(torch.float32)
    summed_BH = torch.einsum("bth,bt->bh", states_BTH.float(), weights_BT)
    return (summed_BH / weights_BT.sum(-1, keepdim=True).clamp(min=1))[rows_B]


def _divergence(student_NV: Tensor, teacher_NV: Tensor, config: LogitConfig) -> Tensor:
    """Over the tokens both have. Embeddings are padded to round sizes; the columns beyond are no tokens of either."""
    columns = min(student_NV.shape[-1], teacher_NV.shape[-1])
    student, teacher = student_NV[..., :columns], teacher_NV[..., :columns]
    match config.divergence:
        case "forward":
            return forward_kl(student, teacher, temperature=config.temperature)
        case "reverse":
            return reverse_kl(student, teacher, temperature=config.temperature)
        case "jsd":
            return jensen_shannon(student, teacher, beta=config.beta, temperature=config.temperature)
