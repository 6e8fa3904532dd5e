"""Students of two layers, made from a seed, and examples for them."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from synthgen.train.examples import Example, SoftLabels, Span

__all__ = ["example", "examples", "soft_example", "tiny_llama"]

VOCABULARY = 96


def tiny_llama(
    vocabulary: int = VOCABULARY, *, seed: int = 0, attention: str = "sdpa", **config: object
) -> LlamaForCausalLM:
    """A Llama of two layers, 32 wide."""
    torch.manual_seed(seed)
    made = LlamaConfig(
        **{
            "vocab_size": vocabulary,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            **config,
        }
    )
    made._attn_implementation = attention
    return LlamaForCausalLM(made)


def example(length: int, targets: int, *, seed: int = 0, **fields: object) -> Example:
    """Random tokens, the last `targets` of them trained on."""
    ids = np.random.default_rng(seed).integers(3, VOCABULARY, length).astype(np.int32)
    return Example(ids, (Span(length - targets, length, 1),), id=f"{seed}", row=f"{seed}", **fields)  # type: ignore[arg-type]


def examples(count: int, *, seed: int = 0) -> list[Example]:
    """Rows of uneven length with uneven numbers of targets."""
    random = np.random.default_rng(seed)
    made = []
    for at in range(count):
        length = int(random.integers(6, 24))
        made.append(example(length, int(random.integers(1, length)), seed=1000 * seed + at))
    return made


def soft_example(row: Example, k: int) -> Example:
    """The same row, with a teacher that finds `k` tokens equally likely everywhere."""
    ids = np.tile(np.arange(k, dtype=np.int32), (row.targets, 1))
    return row.with_soft(SoftLabels(ids, np.full(ids.shape, -np.log(k + 1), dtype=np.float32)))
