"""Writes a checkpoint as one GGUF file: what llama.cpp, Ollama, LM Studio and `provider: local` load.

In: a folder with `config.json`, safetensors and `tokenizer.json`. Out: a `.gguf` file. Guarantees: every tensor of the
checkpoint is written or the export fails; an architecture, rotary scaling or tokenizer this module does not know is
refused with its name instead of written wrongly; the file appears when whole.

Known are decoders of the families Llama, Qwen2 and Qwen3 with byte-level BPE, where names, shapes and metadata follow
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Quantised types are those the `gguf` package computes itself.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.types import JSONValue

if TYPE_CHECKING:
    import gguf

__all__ = ["GGUF_TYPES", "GgufType", "write_gguf"]

GgufType = Literal["f16", "bf16", "q8_0", "q4_0", "q4_1"]
GGUF_TYPES: tuple[GgufType, ...] = ("f16", "bf16", "q8_0", "q4_0", "q4_1")

Array = NDArray[np.float32]

# Architecture of GGUF by `model_type`; whether its rotary pairs lie side by side, for which Q and K are reordered.
_ARCHITECTURES = {"llama": ("LLAMA", True), "qwen2": ("QWEN2", False), "qwen3": ("QWEN3", False)}

# The split patterns of pre-tokenizers that llama.cpp knows by name; the names are those of its `llama-vocab.cpp`.
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_NAMES_OF_SPLITS = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}


def write_gguf(checkpoint: Path, target: Path, kind: GgufType) -> None:
    """Write `checkpoint` as `target`. Norms stay in 32 bits, embeddings in 8 or more; 4-bit types have blocks of 32.

    Raises:
        UsageError: no checkpoint, or one of an architecture or tokenizer that cannot be written.
    """
    import gguf

    config = _json(checkpoint / "config.json")
    tokenizer = _tokenizer(checkpoint)
    model_type = str(config.get("model_type"))
    if model_type not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise UsageError(
            f"{checkpoint}: GGUF of model_type {model_type!r} is not supported, only of {known}; "
            "llama.cpp's convert_hf_to_gguf.py knows more"
        )
    name, interleaved = _ARCHITECTURES[model_type]
    arch = gguf.MODEL_ARCH[name]
    shape = _Shape.of(config, checkpoint)
    temporary = target.with_name(f".{target.name}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[arch])
    try:
        _write_architecture(writer, shape, kind, checkpoint.name)
        _write_tokenizer(writer, tokenizer, shape.vocabulary, checkpoint)
        names = gguf.get_tensor_name_map(arch, shape.layers)
        for tensor, values in _tensors(checkpoint, tied=shape.tied):
            written = names.get_name(tensor, try_suffixes=(".weight", ".bias"))
            if written is None:
                raise UsageError(f"{checkpoint}: tensor {tensor} has no place in a GGUF file of {name}")
            if interleaved and tensor.endswith(("q_proj.weight", "k_proj.weight")):
                values = _pairs_side_by_side(values, shape.heads if "q_proj" in tensor else shape.kv_heads)
            _add(writer, written, values, _type_of(written, values, kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Shape:
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    context: int
    vocabulary: int
    epsilon: float
    rope_base: float
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, JSONValue], checkpoint: Path) -> "_Shape":
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        rope = rope if isinstance(rope, dict) else {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UsageError(
                f"{checkpoint}: rotary scaling {kind!r} cannot be written to GGUF; llama.cpp's convert_hf_to_gguf.py can"
            )

        def number(key: str, default: float | None = None) -> float:
            value = config.get(key)
            value = default if value is None else value
            if not isinstance(value, int | float):
                raise UsageError(f"{checkpoint}/config.json: {key} is missing")
            return value

        heads, width = int(number("num_attention_heads")), int(number("hidden_size"))
        base = rope.get("rope_theta", config.get("rope_theta", 10000.0))
        return cls(
            layers=int(number("num_hidden_layers")),
            width=width,
            feed_forward=int(number("intermediate_size")),
            heads=heads,
            kv_heads=int(number("num_key_value_heads", heads)),
            head_width=int(number("head_dim", width // heads)),
            context=int(number("max_position_embeddings")),
            vocabulary=int(number("vocab_size")),
            epsilon=number("rms_norm_eps"),
            rope_base=float(base) if isinstance(base, int | float) else 10000.0,
            tied=bool(config.get("tie_word_embeddings", False)),
        )


def _write_architecture(writer: "gguf.GGUFWriter", shape: _Shape, kind: GgufType, name: str) -> None:
    import gguf

    writer.add_name(name)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _json(path: Path) -> dict[str, JSONValue]:
    try:
        read = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no checkpoint here: {error}") from error
    if not isinstance(read, dict):
        raise UsageError(f"{path}: no JSON object")
    return read


@dataclass(frozen=True, slots=True)
class _Tokenizer:
    tokens: tuple[str, ...]
    added: Mapping[str, bool]  # added tokens, and whether they are special
    merges: tuple[str, ...]
    split: str  # how llama.cpp names the pre-tokenizer
    specials: Mapping[str, int]  # bos, eos, unk, pad
    chat_template: str | None


def _tokenizer(checkpoint: Path) -> _Tokenizer:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    read = json.loads(tokenizer.backend_tokenizer.to_str())
    model = read["model"]
    if model["type"] != "BPE":
        raise UsageError(
            f"{checkpoint}: a tokenizer of type {model['type']} cannot be written to GGUF, only byte-level BPE"
        )
    vocabulary: dict[str, int] = dict(model["vocab"])
    added = {token["content"]: bool(token["special"]) for token in read["added_tokens"]}
    vocabulary.update({token["content"]: token["id"] for token in read["added_tokens"]})
    tokens = tuple(sorted(vocabulary, key=vocabulary.__getitem__))
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise UsageError(f"{checkpoint}: the ids of its tokenizer have gaps, which GGUF cannot hold")
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    return _Tokenizer(
        tokens,
        added,
        merges,
        _split_name(read["pre_tokenizer"], checkpoint),
        {name: number for name, number in ids.items() if number is not None},
        tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    )


def _split_name(pre_tokenizer: dict[str, JSONValue] | None, checkpoint: Path) -> str:
    """llama.cpp splits by names, not by patterns: a pattern without a name would be split wrongly."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer]) if pre_tokenizer else []
    assert isinstance(steps, list)
    kinds = [step["type"] for step in steps if isinstance(step, dict)]
    first = steps[0] if steps else None
    if isinstance(first, dict):
        if kinds == ["ByteLevel"] and first.get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and first.get("individual_digits"):
            return "smollm"
        pattern = first.get("pattern")
        if kinds == ["Split", "ByteLevel"] and isinstance(pattern, dict):
            named = _NAMES_OF_SPLITS.get(str(pattern.get("Regex")))
            if named is not None:
                return named
    raise UsageError(
        f"{checkpoint}: its tokenizer splits text in a way ({' + '.join(map(str, kinds)) or 'none'}) that has no name in "
        "GGUF this export knows; llama.cpp's convert_hf_to_gguf.py knows more"
    )


def _write_tokenizer(
    writer: "gguf.GGUFWriter", tokenizer: _Tokenizer, vocabulary: int, checkpoint: Path
) -> None:
    import gguf

    if len(tokenizer.tokens) > vocabulary:
        raise UsageError(
            f"{checkpoint}: its tokenizer has {len(tokenizer.tokens)} tokens, its model only {vocabulary}"
        )
    unused = [f"[PAD{number}]" for number in range(len(tokenizer.tokens), vocabulary)]
    types = [
        gguf.TokenType.NORMAL
        if token not in tokenizer.added
        else (gguf.TokenType.CONTROL if tokenizer.added[token] else gguf.TokenType.USER_DEFINED)
        for token in tokenizer.tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.split)
    writer.add_token_list([*tokenizer.tokens, *unused])
    writer.add_token_types([*types, *[gguf.TokenType.UNUSED] * len(unused)])
    writer.add_token_merges(list(tokenizer.merges))
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)
    add = {"bos": writer.add_bos_token_id, "eos": writer.add_eos_token_id}
    add |= {"unk": writer.add_unk_token_id, "pad": writer.add_pad_token_id}
    for name, number in tokenizer.specials.items():
        add[name](number)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def _tensors(checkpoint: Path, *, tied: bool) -> Iterator[tuple[str, Array]]:
    """All tensors in 32 bits, one at a time; a tied head is the embedding, which is written once."""
    import torch
    from safetensors import safe_open

    files = sorted(checkpoint.glob("*.safetensors"))
    if (checkpoint / "adapter_config.json").is_file():
        raise UsageError(f"{checkpoint}: holds adapters; merge them first (lora.merge: true)")
    if not files:
        raise UsageError(f"{checkpoint}: no safetensors here")
    for file in files:
        with safe_open(file, framework="pt") as archive:
            for name in archive.keys():  # noqa: SIM118  # not a mapping
                if tied and name == "lm_head.weight":
                    continue
                yield name, archive.get_tensor(name).to(torch.float32).numpy()


def _pairs_side_by_side(values: Array, heads: int) -> Array:
    """Rotary pairs (i, i + half) of every head as (2i, 2i + 1): the order GGUF's Llama rotates in."""
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return split.swapaxes(1, 2).reshape(values.shape)


def _type_of(name: str, values: Array, kind: GgufType) -> "gguf.GGMLQuantizationType":
    import gguf

    if values.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    if kind in ("q4_0", "q4_1") and name in ("token_embd.weight", "output.weight"):
        wanted = gguf.GGMLQuantizationType.Q8_0
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if values.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16


def _add(writer: "gguf.GGUFWriter", name: str, values: Array, kind: "gguf.GGMLQuantizationType") -> None:
    import gguf

    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
