"""Adapters that were trained on a quantised base, merged into the base itself.

In: the trained model, and where its base lies. Out: the base with the adapters in it. Rejected: merging into the 4 bits. What
the adapters add is smaller than a step of 4 bits, so most of it would be rounded away.
"""

from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

__all__ = ["merged_from_disk"]


def merged_from_disk(
    adapted: PeftModel,
    base: str,
    *,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """A copy of the base from disk (or the hub's cache) with the adapters of `adapted`, which is left alone."""
    with TemporaryDirectory(prefix="synthgen-adapters-") as folder:
        adapted.save_pretrained(folder)
        whole = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            **({} if revision is None else {"revision": revision}),
        )
        return PeftModel.from_pretrained(whole, folder).merge_and_unload()
