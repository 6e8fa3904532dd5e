"""A checkpoint as the teacher that runs beside a student."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from synthgen.errors import SourceError
from synthgen.train.losses.objectives import Seen

__all__ = ["LocalTeacher", "load_teacher"]


class LocalTeacher:
    """A frozen causal language model; it follows the batch to its device and is never trained."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval().requires_grad_(False)
        text = model.config.get_text_config()
        self.width: int = text.hidden_size
        self.layers: int = text.num_hidden_layers

    def __call__(self, inputs: Mapping[str, Tensor], *, hidden: bool = False) -> Seen:
        """Its logits (and hidden states) of a batch. Without a cache: packed rows would see each other through it."""
        device = inputs["input_ids"].device
        if self.model.device != device:
            self.model.to(device)
        with torch.no_grad():
            out = self.model(**inputs, use_cache=False, output_hidden_states=hidden)
        return Seen(out.logits, tuple(out.hidden_states) if hidden else ())


def load_teacher(source: str, *, dtype: torch.dtype | None = None) -> LocalTeacher:
    """The checkpoint in a folder or on the hub, in its own precision where none is given.

    Raises:
        SourceError: there is no such checkpoint.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype if dtype is not None else "auto")
    except (OSError, ValueError) as error:
        raise SourceError(f"{source}: no causal language model that could be loaded: {error}") from error
    return LocalTeacher(model)
