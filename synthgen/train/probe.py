"""What is proved on the model at hand before the first step.

In: a model and examples. Guarantee: a packed batch that lets rows see each other is refused, whatever the architecture
and the attention code.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from synthgen.errors import UsageError
from synthgen.train.batch import collate_packed
from synthgen.train.examples import Example

__all__ = ["contamination", "require_separation"]

_TOKENS = 64  # of each probed row


def contamination(
    model: PreTrainedModel, first: Example, second: Example, *, use_cache: bool = False
) -> float:
    """How much the logits of `second` change when it is packed behind `first`, relative to their size.

    With `use_cache` the libraries forget the restart of the positions and rows see each other: never train or evaluate
    packed rows with a cache.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            together = _logits(model, [first, second], use_cache)[:, len(first) :]
            alone = _logits(model, [second], use_cache)
    finally:
        model.train(was_training)
    return float((together - alone).abs().max() / alone.abs().max())


def require_separation(model: PreTrainedModel, examples: Sequence[Example]) -> None:
    """Refuse packing for a model whose packed rows see each other.

    Raises:
        UsageError: they do; a recurrent model, for example, carries its state on.
    """
    short = sorted(examples, key=len)[:2]
    if len(short) < 2 or len(short[0]) + len(short[1]) > 16 * _TOKENS:
        short = list(examples[:2])
    if len(short) < 2:
        return
    # The libraries' kernels sum in another order when rows are longer; bf16 has 8 bits.
    tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 5e-2
    seen = contamination(model, short[0], short[1])
    if seen > tolerance:
        raise UsageError(
            f"data.packing: packed rows of {type(model).__name__} see each other (logits change by {seen:.2g}); "
            "set `packing: false`"
        )


def _logits(model: PreTrainedModel, group: Sequence[Example], use_cache: bool) -> torch.Tensor:
    batch = collate_packed([group], pad_id=0)
    device = next(model.parameters()).device
    inputs = {name: batch[name].to(device) for name in ("input_ids", "position_ids")}
    return model(**inputs, use_cache=use_cache).logits
