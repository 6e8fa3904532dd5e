"""What a training would need, before anything is loaded: `synthgen train plan`.

In: a student's file, the lengths of its examples, the config of its base. Out: `Estimate`: parameters, memory by kind,
FLOPs, steps, and time on common cards. All of it is estimated, not measured, and says so; the model is built on torch's
meta device, which has shapes and no values, so 70 billion parameters are counted in seconds.

Formulas. Weights, gradients and AdamW's two moments are counted in the precision they are kept in. Activations of a layer:
34 bytes a token and unit of width in 16 bits, twice that in 32 (Korthikanti et al. 2022, "Reducing Activation
Recomputation in Large Transformer Models", table 2, without the attention scores, which sdpa does not keep); with
checkpointing the layer's input alone. Logits: three copies in 32 bits. FLOPs: 6 for each parameter and token, 4 where the
base is frozen, 2 more with checkpointing (Kaplan et al. 2020, appendix; heads and scores of attention left out).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from synthgen.dataclasses import dataclass
from synthgen.errors import SourceError
from synthgen.train.audit import audit
from synthgen.train.base import source_of
from synthgen.train.config import LoadedStudent, StudentConfig
from synthgen.train.depth import evenly, shallower_config
from synthgen.train.preparing import packed_lengths, template_of
from synthgen.train.reading import read_dataset, split
from synthgen.train.template import chat_format

__all__ = ["CARDS", "Card", "Estimate", "Fit", "Sizes", "estimate", "plan_student", "sizes_of"]

_ASSUMED_MFU = (
    0.35  # of the peak; what one card reaches with sdpa and no fused kernels, to be replaced by a measurement
)
_RESERVED_BYTES = 1.5e9  # CUDA context, the allocator's fragments
_ADAM_BYTES = {"adamw": 8, "adamw_8bit": 2, "adafactor": 0.1, "sgd": 0}


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU by its maker's data sheet: memory in bytes, dense BF16 tensor FLOP/s."""

    name: str
    memory_bytes: float
    flops: float


CARDS = (
    Card("L4 24 GB", 24e9, 121e12),
    Card("RTX 4090 24 GB", 24e9, 165e12),
    Card("A100 80 GB", 80e9, 312e12),
    Card("H100 80 GB", 80e9, 989e12),
    Card("H200 141 GB", 141e9, 989e12),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """A model's numbers. `trained`: parameters with gradients."""

    parameters: int
    trained: int
    layers: int
    width: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Fit:
    """One card: whether one of it is enough, how many would hold weights and states if sharded, hours on one."""

    card: str
    fits: bool
    cards_if_sharded: int
    hours: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated, not measured. Bytes of one device; `micro_batch` is what it computes at a time."""

    sizes: Sizes
    examples: int
    tokens_per_epoch: int
    steps: int
    micro_batch: int
    longest: int
    weights_bytes: float
    gradients_bytes: float
    optimizer_bytes: float
    activations_bytes: float
    flops: float
    cards: tuple[Fit, ...]

    @property
    def total_bytes(self) -> float:
        """All of it at its peak."""
        return self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.activations_bytes


def plan_student(loaded: LoadedStudent, dataset: Path) -> Estimate:
    """Read and mask the dataset, count the base's parameters, and estimate; loads no weights.

    Raises:
        SourceError: data or base cannot be read.
        UsageError: the file, the data and the base do not fit together.
    """
    config, source = loaded.config, source_of(loaded)
    options = {"trust_remote_code": config.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        context = getattr(
            AutoConfig.from_pretrained(source, **options).get_text_config(), "max_position_embeddings", None
        )
        sizes = sizes_of(source, config)
    except (OSError, ValueError) as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SourceError(f"{loaded.where('base')}: {config.base!r} cannot be read: {said}") from error
    conversations = read_dataset(dataset, limit=config.data.limit).conversations
    training, _ = split(conversations, config.data.validation_share, seed=config.seed)
    format = chat_format(tokenizer, template_of(loaded))
    audited = audit(training, format, config.data, context=context)
    return estimate(config, sizes, packed_lengths(config, audited.examples))


def sizes_of(base: str, config: StudentConfig) -> Sizes:
    """Count the parameters of a checkpoint from its config alone.

    Raises:
        OSError: there is no config at `base`.
    """
    read = AutoConfig.from_pretrained(base, trust_remote_code=config.trust_remote_code)
    if config.layers is not None:
        layers = int(read.num_hidden_layers)
        read = shallower_config(read, evenly(layers, min(config.layers, layers)))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(read, trust_remote_code=config.trust_remote_code)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    text = read.get_text_config()
    linears = [module for name, module in model.named_modules() if _is_adapted(name, module, config)]
    adapters = sum(config.lora.r * (one.in_features + one.out_features) for one in linears)
    return Sizes(
        parameters,
        parameters if config.method == "full" else adapters,
        int(text.num_hidden_layers),
        int(text.hidden_size),
        int(text.vocab_size),
    )


def _is_adapted(name: str, module: torch.nn.Module, config: StudentConfig) -> bool:
    """As peft reads `all-linear`: every linear layer but the head."""
    if not isinstance(module, torch.nn.Linear):
        return False
    last = name.rpartition(".")[2]
    targets = config.lora.targets
    return last != "lm_head" if targets == "all-linear" else last in targets


def estimate(config: StudentConfig, sizes: Sizes, lengths: Sequence[int]) -> Estimate:
    """`lengths` are the tokens of each training sequence: of packs where rows are packed."""
    low = config.hardware.precision != "fp32"
    trained_width = 2 if config.hardware.precision == "pure-bf16" else 4
    frozen_width = {"full": 0.0, "lora": 2.0 if low else 4.0, "qlora": 0.55}[config.method]
    frozen = sizes.parameters if config.method != "full" else 0
    micro = config.steps.micro_batch or config.steps.batch_size
    longest = max(lengths, default=0)
    tokens = sum(lengths)
    a_epoch = math.ceil(len(lengths) / config.steps.batch_size)
    steps = config.steps.max_steps or math.ceil(a_epoch * config.steps.epochs)
    seen = tokens * (steps / a_epoch if a_epoch else 0)
    each = 6 if config.method == "full" else 4
    flops = (each + 2 * config.hardware.checkpointing) * sizes.parameters * seen
    weights = frozen * frozen_width + sizes.trained * trained_width
    if low and config.method == "full" and trained_width == 4:
        weights += sizes.parameters * 2  # the copy autocast computes with
    states = sizes.trained * _ADAM_BYTES[config.steps.optimizer] * trained_width / 4
    bytes_here = {
        "weights": weights,
        "gradients": sizes.trained * float(trained_width),
        "optimizer": states,
        "activations": _activations(config, sizes, micro * longest, low=low),
    }
    total = sum(bytes_here.values()) + _RESERVED_BYTES
    shardable = total - bytes_here["activations"] - _RESERVED_BYTES
    return Estimate(
        sizes,
        len(lengths),
        tokens,
        steps,
        micro,
        longest,
        bytes_here["weights"],
        bytes_here["gradients"],
        bytes_here["optimizer"],
        bytes_here["activations"],
        flops,
        tuple(_fit(card, total, shardable, flops) for card in CARDS),
    )


def _activations(config: StudentConfig, sizes: Sizes, tokens: int, *, low: bool) -> float:
    bytes_a_unit = (2 if config.hardware.checkpointing else 34) * (1 if low else 2)
    layers = sizes.layers * bytes_a_unit
    if config.hardware.checkpointing:
        layers += 34 * (1 if low else 2)  # the one layer that is computed again
    logits = 3 * 4 * sizes.vocabulary
    return float(tokens) * (layers * sizes.width + logits)


def _fit(card: Card, total: float, shardable: float, flops: float) -> Fit:
    room = card.memory_bytes - (total - shardable)
    needed = math.ceil(shardable / room) if room > 0 else 0
    return Fit(card.name, total <= card.memory_bytes, needed, flops / (card.flops * _ASSUMED_MFU) / 3600)
