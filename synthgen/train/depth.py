"""A student that begins as its teacher without some of its layers.

In: a causal language model (or any model of transformers with one list of layers) and the layers to keep. Out: a new
model whose kept layers, embeddings and head are copies. Guarantees: with all layers kept it computes what its teacher
does; whatever the config says layer by layer (attention types, MLP types) is cut with them; the teacher is left alone.

Source: Sanh et al. 2019, "DistilBERT" (layers taken over from the teacher); evenly spread, the first and the last kept.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from synthgen.errors import UsageError

__all__ = ["evenly", "shallower", "shallower_config"]


def evenly(layers: int, kept: int) -> list[int]:
    """Numbers of `kept` of the layers, evenly spread from the first to the last; the last alone for 1.

    Raises:
        UsageError: fewer than one, or more than there are.
    """
    if not 1 <= kept <= layers:
        raise UsageError(f"{kept} layers of a teacher that has {layers}")
    if kept == 1:
        return [layers - 1]
    return [round(at * (layers - 1) / (kept - 1)) for at in range(kept)]


def shallower(teacher: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """A copy of the teacher with the layers `keep` alone, in order.

    Raises:
        UsageError: a layer does not exist, is named twice or out of order, or the layers cannot be found.
    """
    prefix, layers = _layers(teacher)
    if list(keep) != sorted(set(keep)) or not keep or not 0 <= keep[0] <= keep[-1] < layers:
        raise UsageError(
            f"layers {list(keep)} of a teacher that has {layers}: name each once, in order, from 0"
        )
    student = type(teacher)(shallower_config(teacher.config, keep)).to(teacher.dtype)
    with torch.no_grad():
        student.load_state_dict(_kept(teacher, prefix, keep))
    student.tie_weights()
    if teacher.generation_config is not None:
        student.generation_config = deepcopy(teacher.generation_config)
    return student


def shallower_config(config: PreTrainedConfig, keep: Sequence[int]) -> PreTrainedConfig:
    """The config of a model with the layers `keep` alone: what it says layer by layer is cut with them."""
    layers, found = int(config.num_hidden_layers), deepcopy(config)
    for name, value in list(vars(found).items()):
        if isinstance(value, list | tuple) and len(value) == layers:
            setattr(found, name, [value[at] for at in keep])
    found.num_hidden_layers = len(keep)
    return found


def _layers(model: PreTrainedModel) -> tuple[str, int]:
    """Where the list of layers is, and how many they are."""
    count = int(model.config.num_hidden_layers)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and name.count(".") <= 1
    ]
    if len(found) != 1:
        raise UsageError(
            f"{type(model).__name__}: found {len(found)} lists of {count} layers where one is expected, so none can be dropped"
        )
    return f"{found[0]}.", count


def _kept(model: PreTrainedModel, prefix: str, keep: Sequence[int]) -> dict[str, torch.Tensor]:
    """The teacher's weights under the names of the student."""
    number = {at: new for new, at in enumerate(keep)}
    out = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(prefix):
            out[name] = tensor
            continue
        at, _, rest = name.removeprefix(prefix).partition(".")
        if int(at) in number:
            out[f"{prefix}{number[int(at)]}.{rest}"] = tensor
    return out
