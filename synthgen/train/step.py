"""The loss of one batch: what the model is called with, which logits it is asked for, what the objective gets.

In: a model, an objective, the tensors of `batch.py`. Out: `Loss`. Guarantees: no cache, through which packed rows would see
each other; logits are computed where they predict a target and nowhere else, where the model can do that and no teacher
has to see the same positions.
"""

import inspect
from collections.abc import Callable, Mapping

import torch
from peft import PeftModel
from torch import Tensor

from synthgen.train.batch import EXTRAS
from synthgen.train.examples import IGNORED
from synthgen.train.objective import Forward, Loss, Objective

__all__ = ["batch_loss", "can_narrow"]

_INPUTS = ("input_ids", "attention_mask", "position_ids")


def can_narrow(model: torch.nn.Module) -> bool:
    """Whether the model can be asked for the logits of some positions alone."""
    return "logits_to_keep" in inspect.signature(_forward_of(model)).parameters


def batch_loss(
    model: torch.nn.Module,
    objective: Objective,
    batch: Mapping[str, Tensor],
    targets: Tensor | int,
    *,
    narrow: bool,
) -> Loss:
    """One forward pass and its loss; `targets`: of the whole optimiser step, which the loss is divided by."""
    called = {name: batch[name] for name in _INPUTS if name in batch}
    extras = {name: batch[name] for name in EXTRAS if name in batch}
    labels_BT = batch["labels"]
    options: dict[str, object] = {"use_cache": False}
    if objective.needs_hidden:
        options["output_hidden_states"] = True
    elif narrow and getattr(objective, "teacher", None) is None:
        kept = _predicting(labels_BT)
        options["logits_to_keep"] = kept
        labels_BT = _at(labels_BT, kept, IGNORED)
        extras = {name: _at(values, kept, 0) for name, values in extras.items()}
    out = model(**called, **options)
    hidden = tuple(out.hidden_states) if objective.needs_hidden else None
    return objective(Forward(out.logits, labels_BT, targets, called, extras, hidden))


def _forward_of(model: torch.nn.Module) -> Callable[..., object]:
    base: torch.nn.Module = model.get_base_model() if isinstance(model, PeftModel) else model
    forward: Callable[..., object] = type(base).forward
    return forward


def _predicting(labels_BT: Tensor) -> Tensor:
    """Positions that predict a target in some row, and behind them the last one, which predicts nothing."""
    predicts_T = (labels_BT[:, 1:] != IGNORED).any(0)
    return torch.cat([predicts_T.nonzero()[:, 0], labels_BT.new_full((1,), labels_BT.shape[1] - 1)])


def _at(values_BTX: Tensor, kept_P: Tensor, blank: int) -> Tensor:
    """`values_BTX` for logits of the positions `kept_P`: again one further than the position that predicts them."""
    first = torch.full_like(values_BTX[:, :1], blank)
    return torch.cat([first, values_BTX[:, kept_P[:-1] + 1]], dim=1)
