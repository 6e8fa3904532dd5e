"""Weights that hardly count, set to zero before an export: the hook of `torch.nn.utils.prune`.

In: a checkpoint, a share. Out: a checkpoint of the same shapes, `share` of the weights of its linear layers zero: those of
least magnitude, over all layers together. Embeddings, norms and a head that is tied to the embeddings are left alone.
Guarantees: what is written loads as any checkpoint does, without masks; how much was really zeroed is told.
It makes nothing smaller or quicker by itself: engines that store zeros well do. Try it with `train evaluate` beside the original.

Source: Han et al. 2015, "Learning both Weights and Connections"; PyTorch, `torch.nn.utils.prune.global_unstructured`.
"""

import shutil
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune
from transformers import AutoModelForCausalLM, PreTrainedModel

from synthgen.errors import SourceError, UsageError

__all__ = ["prune_checkpoint", "pruned"]


def pruned(model: PreTrainedModel, share: float) -> float:
    """Zero `share` (0..1, neither) of the model's linear weights, in place; the share that is zero now.

    Raises:
        UsageError: no such share, or the model has no linear layers of its own.
    """
    if not 0 < share < 1:
        raise UsageError(f"prune: {share:g} is no share between 0 and 1")
    head = model.get_output_embeddings()
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    if not layers:
        raise UsageError(f"prune: {type(model).__name__} has no linear layers")
    prune.global_unstructured(
        [(layer, "weight") for layer in layers], pruning_method=prune.L1Unstructured, amount=share
    )
    for layer in layers:
        prune.remove(layer, "weight")
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    return zeros / sum(int(layer.weight.numel()) for layer in layers)


def prune_checkpoint(checkpoint: Path, out: Path, share: float) -> float:
    """`pruned` from folder to folder, tokenizer and all; what a student's `student.json` says holds no longer and is left out.

    Raises:
        SourceError: no checkpoint.
        UsageError: `out` exists, or as `pruned`.
    """
    if out.exists():
        raise UsageError(f"{out} exists; name a new place")
    if not checkpoint.is_dir():  # the library would look for it on the hub, whatever it is told
        raise SourceError(f"there is no folder {checkpoint}")
    try:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto", local_files_only=True)
    except (OSError, ValueError) as error:
        raise SourceError(f"{checkpoint}: no checkpoint that could be loaded: {error}") from error
    with torch.no_grad():
        zeroed = pruned(model, share)
    staging = out.with_name(f".{out.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(
        checkpoint, staging, ignore=shutil.ignore_patterns("*.safetensors*", "student.json", "*.bin")
    )
    model.save_pretrained(staging)
    staging.rename(out)
    return zeroed
