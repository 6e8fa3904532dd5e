"""A student's YAML file: what is trained, on what, and how.

In: a file or a mapping, and `--set a.b=c` texts. Out: `Loaded`; here of a student that writes, `tasks.py` has the others. The rules are those of recipes: unknown keys are
refused with the nearest allowed one, errors carry file and line, the same overrides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Generic, Literal, Self, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, Field, model_validator

from synthgen.dataclasses import dataclass
from synthgen.errors import RecipeError
from synthgen.recipe.load import apply_override
from synthgen.recipe.model import NAME, Strict
from synthgen.recipe.yaml_file import Document, dotted, parse_yaml, read_yaml, validate
from synthgen.train.losses.config import LossConfig
from synthgen.train.trackers import Tracker
from synthgen.types import JSONValue, digest

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "HardwareConfig",
    "Loaded",
    "LoadedStudent",
    "LoraConfig",
    "Method",
    "Share",
    "StartConfig",
    "StepsConfig",
    "StudentConfig",
    "load_student",
    "read_student",
    "validated",
]

_WARMUP_SHARE = 0.03
_WARMUP_LEAST = 5

Method = Literal["full", "lora", "qlora"]
M = TypeVar("M", bound=BaseModel)
C = TypeVar("C", bound=BaseModel, covariant=True)
Share = Annotated[float, Field(ge=0, lt=1)]


class LoraConfig(Strict):
    """Low-rank adapters on every linear layer. `alpha` / `r` scales them; `merge`: the student is saved as one model."""

    r: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Share = 0.0
    targets: Literal["all-linear"] | list[str] = "all-linear"
    merge: bool = True


class DataConfig(Strict):
    """What of a conversation becomes input and target.

    `train_on`: every assistant turn, or only the last. `reasoning`: `keep` it as the chat template renders it, `inline`
    it in front of the answer between `reasoning_tags`, `strip` it, or make `separate` examples of rationale and answer:
    then `rationale_prompt` is added to the last question of the one and `rationale_weight` multiplies its loss.
    Nothing is ever cut: rows of more than `max_length` tokens are an error, or dropped and counted; the same goes for rows
    that the chat template cannot hold (`unusable`). `packing`: short rows share a sequence of `max_length` tokens and do not see
    each other. `validation_share` is cut from the train split by source row.
    """

    max_length: Annotated[int, Field(ge=8)] | None = None
    too_long: Literal["error", "drop"] = "error"
    unusable: Literal["error", "drop"] = "error"
    train_on: Literal["all", "last"] = "all"
    reasoning: Literal["keep", "inline", "strip", "separate"] = "keep"
    reasoning_tags: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    rationale_prompt: str = "\n\nExplain how to find the answer."
    rationale_weight: Annotated[float, Field(gt=0)] = 1.0
    chat_template: str | None = None
    packing: bool = False
    validation_share: Share = 0.0
    limit: Annotated[int, Field(ge=1)] | None = None


class StepsConfig(Strict):
    """The optimiser. `batch_size` is what one step sees, on all devices together: rows, or packed sequences.

    A device computes `micro_batch` of them at a time and accumulates, which does not change the result. Without
    `learning_rate`: 2e-5 for full fine-tuning, ten times that for adapters. `warmup` is the share of the steps in which the
    rate rises; without it 3 %, at least five steps, but never more than a fifth of them.
    """

    epochs: Annotated[float, Field(gt=0)] = 3.0
    max_steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 8
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Share | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    optimizer: Literal["adamw", "sgd", "adafactor", "adamw_8bit"] = "adamw"


class HardwareConfig(Strict):
    """How it is computed; `auto` takes what the device can do.

    `precision`: of the computation; the weights that are trained are kept in 32 bits unless it is `pure-bf16`.
    `checkpointing` computes activations twice to save memory. `liger`: Triton kernels of liger-kernel;
    `auto` takes them where they are installed and torch sees a GPU. `deepspeed`: a file, or the shipped `zero2`, `zero3`.
    """

    precision: Literal["auto", "fp32", "bf16", "pure-bf16"] = "auto"
    checkpointing: bool = False
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = "auto"
    liger: Literal["auto"] | bool = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    fsdp: bool = False
    deepspeed: str | None = None


class EvaluationConfig(Strict):
    """What happens every `every` steps: loss on the validation share, and a checkpoint to go on from.

    `patience`: so many evaluations without improvement end the training; the best checkpoint becomes the student.
    """

    every: Annotated[int, Field(ge=1)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2


class StartConfig(Strict):
    """What every student has, whatever its task.

    `base` is a hub id (`revision` pins it), a folder, or the packaged `smollm2-135m`. `use` is what the student is for,
    where that is more than the dataset declared; `distributed`: its weights leave the organisation. `trackers` are reported to
    while it trains, by packages of those names.
    """

    name: Annotated[str, Field(pattern=NAME)]
    base: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    seed: int = 0
    use: tuple[str, ...] = ()
    distributed: bool = True


class StudentConfig(StartConfig):
    """A whole student that writes; see `docs/training.md`.

    `layers`: it begins with so many of the base's, evenly spread from the first to the last, instead of all.
    """

    task: Literal["generate"] = "generate"
    trust_remote_code: bool = False
    layers: Annotated[int, Field(ge=1)] | None = None
    method: Method = "full"
    lora: LoraConfig = LoraConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    steps: StepsConfig = StepsConfig()
    hardware: HardwareConfig = HardwareConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    trackers: tuple[Tracker, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.evaluation.patience is not None and self.data.validation_share == 0:
            raise ValueError(
                "evaluation.patience needs data.validation_share: nothing is left to evaluate on"
            )
        if self.layers is not None and self.method == "qlora":
            raise ValueError("layers cannot be dropped from a base in 4 bits: use method: lora")
        micro = self.steps.micro_batch
        if micro is not None and self.steps.batch_size % micro:
            raise ValueError(
                f"steps.micro_batch {micro} does not divide steps.batch_size {self.steps.batch_size}"
            )
        return self

    @property
    def learning_rate(self) -> float:
        """The peak of the schedule."""
        if self.steps.learning_rate is not None:
            return self.steps.learning_rate
        return 2e-5 if self.method == "full" else 2e-4

    def warmup_steps(self, steps: int) -> int:
        """In how many of `steps` the learning rate rises.

        Adam's first steps are as large as the rate, whatever the gradients: a student of 14 steps got 19 of 40 answers right
        with one step of warm-up and 30 with three, all else equal.
        """
        if self.steps.warmup is not None:
            return math.ceil(self.steps.warmup * steps)
        return max(math.ceil(_WARMUP_SHARE * steps), min(_WARMUP_LEAST, math.ceil(steps / 5)))


@dataclass(frozen=True, slots=True)
class Loaded(Generic[C]):
    """`folder` is where relative paths start from; `text` and `digest` are those of the file with its overrides."""

    config: C
    document: Document
    folder: Path
    text: str
    digest: str

    def where(self, *loc: str | int) -> str:
        """`file:line: key.path` of a key, for errors found after loading."""
        return f"{self.document.where(loc)}: {dotted(loc)}"

    def path(self, text: str) -> Path:
        """A path the file names."""
        return self.folder / Path(text).expanduser()


LoadedStudent: TypeAlias = Loaded[StudentConfig]


def load_student(
    source: Path | str | Mapping[str, JSONValue], overrides: Sequence[str] = ()
) -> LoadedStudent:
    """Load, override and validate a student's file.

    Raises:
        RecipeError: everything that is wrong with it, one line each.
        UsageError: an override is not of the form `a.b=c`.
    """
    document, folder = read_student(source, overrides)
    return validated(StudentConfig, document, folder)


def read_student(
    source: Path | str | Mapping[str, JSONValue], overrides: Sequence[str] = ()
) -> tuple[Document, Path]:
    """A student's file with its overrides, and the folder its relative paths start from; not validated yet.

    Raises:
        RecipeError: no YAML, or no mapping.
        UsageError: an override is not of the form `a.b=c`.
    """
    if isinstance(source, Mapping):
        document = parse_yaml(yaml.safe_dump(dict(source), sort_keys=False, allow_unicode=True), "student")
        folder = Path.cwd()
    else:
        document, folder = read_yaml(Path(source)), Path(source).parent
    if not isinstance(document.value, dict):
        raise RecipeError(f"{document.path}:1: a student is a mapping of keys to values")
    overridden = frozenset(apply_override(document.value, override) for override in overrides)
    return replace(document, overridden=overridden), folder


def validated(model: type[M], document: Document, folder: Path) -> Loaded[M]:
    """The document as a config.

    Raises:
        RecipeError: everything that is wrong with it, one line each.
    """
    text = yaml.safe_dump(document.value, sort_keys=False, allow_unicode=True)
    return Loaded(validate(model, document), document, folder, text, digest(document.value))
