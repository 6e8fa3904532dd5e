"""What a small model must satisfy on a device: packing, precision, an optimiser, a compiler.

The model is a Llama of random weights, made from a seed: attention, norms and shapes are those of real ones, and nothing
is downloaded.

Axes: B rows of a batch, T tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from synthgen.dataclasses import dataclass
from synthgen.train.batch import collate, collate_packed
from synthgen.train.doctor.checks import Skip
from synthgen.train.doctor.facts import is_installed
from synthgen.train.examples import IGNORED, Example, Span
from synthgen.train.losses import topk_kl
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.step import batch_loss

__all__ = [
    "ATTENTION",
    "PAD",
    "TINY",
    "Size",
    "bf16_error",
    "compile_error",
    "fused_error",
    "packing_error",
    "random_examples",
    "random_model",
    "random_tokenizer",
    "row_losses",
    "separation_error",
]

ATTENTION = ("eager", "sdpa", "flash_attention_2")
PAD, FIRST = 0, 4  # ids; those below the first are control tokens
_USED = 512  # ids that rows are made of


@dataclass(frozen=True, slots=True)
class Size:
    """Of a model; `heads` share half as many keys and values, as large models have it.

    `spread` of the weights: with the usual 0.02 a small model looks at nothing, and a mask could be wrong unseen.
    """

    width: int
    layers: int
    heads: int
    vocabulary: int
    positions: int = 2048
    spread: float = 0.02


TINY = Size(width=64, layers=2, heads=4, vocabulary=128, spread=0.2)


def random_model(
    size: Size = TINY, *, device: str, attention: str = "sdpa", seed: int = 0
) -> LlamaForCausalLM:
    """The same weights for the same seed, on every device."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=2 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        max_position_embeddings=size.positions,
        initializer_range=size.spread,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=PAD,
    )
    config._attn_implementation = attention
    return LlamaForCausalLM(config).to(device)


def random_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """What the engine wants beside a model: names for ids."""
    words = {f"t{at}": at for at in range(vocabulary)}
    backend = Tokenizer(WordLevel(words, unk_token="t3"))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="t1", eos_token="t2", pad_token="t0", unk_token="t3"
    )


def random_examples(
    count: int, *, vocabulary: int, shortest: int, longest: int, seed: int = 0
) -> list[Example]:
    """Rows of uneven length, their second halves trained on: numbers counted up, so that there is something to learn."""
    random, used = np.random.default_rng(seed), min(vocabulary, _USED) - FIRST
    rows = []
    for at in range(count):
        length = int(random.integers(shortest, longest + 1))
        ids = (FIRST + (random.integers(used) + np.arange(length)) % used).astype(np.int32)
        rows.append(Example(ids, (Span(max(length // 2, 1), length, 1),), id=str(at), row=str(at)))
    return rows


def row_losses(model: torch.nn.Module, rows: Sequence[Example], *, packed: bool) -> Tensor:
    """Summed cross-entropy of each row's targets, float32; packed, all rows share a sequence."""
    batch = collate_packed([rows], PAD) if packed else collate(rows, PAD)
    device = next(model.parameters()).device
    batch = {name: value.to(device) for name, value in batch.items()}
    labels_BT = batch.pop("labels")
    logits_BTV = model(**batch, use_cache=False).logits.float()
    loss_BT = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].transpose(1, 2), labels_BT[:, 1:], ignore_index=IGNORED, reduction="none"
    )
    if not packed:
        return loss_BT.sum(1)
    return torch.stack([part.sum() for part in torch.split(loss_BT[0], _widths(rows))])


def _widths(rows: Sequence[Example]) -> list[int]:
    """Of the rows of a packed sequence, in losses: one less altogether, since the last token predicts nothing."""
    *most, last = map(len, rows)
    return [*most, last - 1]


def packing_error(attention: str, *, device: str) -> float:
    """How much a row's loss changes when it shares a sequence, relative to its size, at worst.

    Raises:
        Skip: that attention is not installed, or not for this device.
    """
    precision = torch.float32
    if attention.startswith("flash"):
        if device != "cuda":
            raise Skip("not run on a CPU: flash attention needs a CUDA device")
        if not is_installed("flash_attn"):
            raise Skip("flash-attn is not installed")
        precision = torch.bfloat16
    return separation_error(random_model(device=device, attention=attention).to(precision))


def separation_error(model: torch.nn.Module) -> float:
    """`packing_error` of a model of 128 tokens."""
    model.train()
    rows = random_examples(6, vocabulary=TINY.vocabulary, shortest=6, longest=40)
    with torch.no_grad():
        together, alone = (row_losses(model, rows, packed=packed) for packed in (True, False))
    return float(((together - alone).abs() / alone.abs()).max())


def bf16_error(*, device: str) -> float:
    """How much the loss in mixed precision differs from that in single precision, relative to it.

    Raises:
        Skip: the device computes no bf16.
    """
    if device == "cuda" and not torch.cuda.is_bf16_supported():
        raise Skip("this GPU computes no bf16")
    model = random_model(device=device).train()
    losses = []
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=enabled):
            losses.append(_loss(model, device))
    single, mixed = (float(loss) for loss in losses)
    return abs(mixed - single) / single


def fused_error(*, device: str) -> float:
    """Largest difference of weights after 3 steps of fused AdamW and of the plain one, relative to the update.

    Raises:
        Skip: there is no fused one for the device.
    """
    before = _flat(random_model(device=device))
    try:
        plain, fused = (_stepped(device, fused=fused) for fused in (False, True))
    except RuntimeError as error:
        if "fused" in str(error):
            raise Skip(f"torch has no fused AdamW here: {error}") from error
        raise
    return float((plain - fused).norm() / (plain - before).norm())


def compile_error(*, device: str) -> float:
    """Largest difference between the compiled top-k loss and the plain one.

    Raises:
        Skip: nothing is compiled on CPUs; or there is no Triton.
    """
    if device != "cuda":
        raise Skip("not run on a CPU: asked on CUDA alone; the trainer does not need it")
    if not is_installed("triton"):
        raise Skip("triton is not installed")
    torch.manual_seed(0)
    logits_NV, ids_NK = torch.randn(64, 1000, device=device), torch.arange(20, device=device).expand(64, 20)
    logprobs_NK = torch.full((64, 20), -4.0, device=device)
    compiled: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.compile(topk_kl)
    return float(
        (compiled(logits_NV, ids_NK, logprobs_NK) - topk_kl(logits_NV, ids_NK, logprobs_NK)).abs().max()
    )


def _loss(model: PreTrainedModel, device: str) -> Tensor:
    rows = random_examples(8, vocabulary=TINY.vocabulary, shortest=6, longest=40)
    batch = {name: value.to(device) for name, value in collate(rows, PAD).items()}
    targets = sum(row.targets for row in rows)
    return batch_loss(model, Distillation(LossConfig()), batch, targets, narrow=True).value


def _stepped(device: str, *, fused: bool) -> Tensor:
    model = random_model(device=device).train()
    steps = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    for _ in range(3):
        _loss(model, device).backward()
        steps.step()
        steps.zero_grad()
    return _flat(model)


def _flat(model: PreTrainedModel) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
