"""The model a student starts from: of the hub, of a folder, or the packaged one.

In: the keys `base`, `revision`, `method` and `hardware` of a student's file. Out: `Base`. Guarantees: the packaged model is
converted once, from a GGUF whose sha256 is pinned, and appears in the cache when whole; its tokenizer cuts text as every
other engine does with that file.
"""

import hashlib
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import orjson
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from synthgen.asking.local_model import PACKAGED, model_path
from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.errors import SourceError, UsageError
from synthgen.train.arguments import precision_of
from synthgen.train.checkpoints import find_checkpoint
from synthgen.train.config import Loaded, LoadedStudent, StartConfig
from synthgen.train.depth import evenly, shallower

__all__ = [
    "Base",
    "base_digest",
    "context_of",
    "converted",
    "four_bits",
    "kept_layers",
    "load_base",
    "require_base",
    "source_of",
    "without_machine_traces",
]

_RECIPE = "1"  # of `converted`: another one is another folder of the cache


@dataclass(frozen=True, slots=True)
class Base:
    """`name` is what the card says; `revision` the commit of the hub, or None."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str | None


def load_base(loaded: LoadedStudent) -> Base:
    """Model and tokenizer, in the precision its weights are trained in.

    Raises:
        SourceError: there is no such model.
        UsageError: QLoRA without bitsandbytes or without a GPU, or more layers than the base has.
    """
    config = loaded.config
    source = source_of(loaded)
    hub = {} if Path(source).is_dir() else {"revision": config.revision or "main"}
    options: dict[str, object] = {"trust_remote_code": config.trust_remote_code, **hub}
    attention = config.hardware.attention
    if attention != "auto":
        options["attn_implementation"] = attention
    if config.method == "qlora":
        options["quantization_config"] = _checked_four_bits()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=config.trust_remote_code, **hub)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=_weights_dtype(loaded), **options)
    except (OSError, ValueError, ImportError) as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SourceError(f"{loaded.where('base')}: {config.base!r} cannot be loaded: {said}") from error
    commit = getattr(model.config, "_commit_hash", None)
    if config.layers is not None:
        model = shallower(model, kept_layers(loaded, int(model.config.num_hidden_layers)))
    return Base(model, tokenizer, config.base, commit if isinstance(commit, str) else None)


def kept_layers(loaded: LoadedStudent, layers: int) -> list[int]:
    """Which of the base's `layers` the student begins with.

    Raises:
        UsageError: the file asks for more than there are.
    """
    wanted = layers if loaded.config.layers is None else loaded.config.layers
    if wanted > layers:
        raise UsageError(f"{loaded.where('layers')}: {wanted}, but {loaded.config.base} has {layers}")
    return evenly(layers, wanted)


def base_digest(loaded: Loaded[StartConfig]) -> str:
    """What identifies the base beside its name: the pinned sha256, the files of a folder, the revision asked for."""
    base = loaded.config.base
    if base in PACKAGED:
        return PACKAGED[base].sha256
    folder = loaded.path(base)
    if not folder.is_dir():
        return loaded.config.revision or "main"
    hashed = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".json", ".jinja", ".model"):
            hashed.update(f"{file.name}\0".encode())
            with file.open("rb") as content:
                hashed.update(hashlib.file_digest(content, "sha256").digest())
    return hashed.hexdigest()


def context_of(model: PreTrainedModel) -> int | None:
    """How many tokens the model was made for; None where it does not say, as recurrent models do not."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) else None


def converted(name: str, gguf: Path) -> Path:
    """The packaged model as a checkpoint, beside its GGUF in the cache; converted on first use, about half a minute."""
    folder = gguf.parent / f"checkpoint-{PACKAGED[name].sha256[:12]}-{_RECIPE}"
    if folder.is_dir():
        return folder
    staging = Path(tempfile.mkdtemp(dir=gguf.parent, prefix=".convert-"))
    try:
        # Without `dequantize` the weights stay in GGUF's blocks, and cannot be saved.
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        )
        model.save_pretrained(staging)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # `tokenizer.ggml.pre = smollm` of the file, which transformers does not read: each digit is a token of its own.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        tokenizer.save_pretrained(staging)
        without_machine_traces(staging)
        staging.chmod(0o755)
        try:
            staging.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process was first, with the same bytes
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def without_machine_traces(folder: Path) -> None:
    """Take out of a saved checkpoint where on this machine it came from."""
    for name, keys in {
        "config.json": ("_model_name_or_path", "_name_or_path"),
        "tokenizer_config.json": ("is_local", "local_files_only", "name_or_path"),
    }.items():
        path = folder / name
        if path.is_file():
            content = orjson.loads(path.read_bytes())
            kept = {key: value for key, value in content.items() if key not in keys}
            write_bytes(path, orjson.dumps(kept, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def source_of(loaded: Loaded[StartConfig]) -> str:
    """Where transformers finds the base: a folder, which the packaged model is converted into, or a hub id.

    Raises:
        SourceError: it looks like a folder, and there is none.
    """
    base = loaded.config.base
    return str(converted(base, model_path(base))) if base in PACKAGED else require_base(loaded)


def require_base(loaded: Loaded[StartConfig]) -> str:
    """The base as the file has it, asked before the work; neither fetches nor loads it.

    Raises:
        SourceError: it looks like a folder, and there is none.
    """
    base = loaded.config.base
    if base in PACKAGED:
        return base
    try:
        return find_checkpoint(base, loaded.path, pinned=loaded.config.revision is not None)
    except SourceError as error:
        raise SourceError(f"{loaded.where('base')}: {error}") from error


def _weights_dtype(loaded: LoadedStudent) -> torch.dtype:
    """32 bits for weights that are trained, unless `pure-bf16`; frozen ones as they are computed."""
    precision = precision_of(loaded.config)
    if loaded.config.method == "full" and loaded.config.hardware.precision != "pure-bf16":
        return torch.float32
    return precision


def _checked_four_bits() -> BitsAndBytesConfig:
    if find_spec("bitsandbytes") is None:
        raise UsageError(
            "method: qlora needs the package bitsandbytes: pip install bitsandbytes, or use method: lora"
        )
    if not torch.cuda.is_available():
        raise UsageError("method: qlora needs a CUDA GPU, and torch sees none: use method: lora")
    return four_bits()


def four_bits() -> BitsAndBytesConfig:
    """NF4 with double quantisation, computed in bf16, as QLoRA has it (Dettmers et al. 2023)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
