"""On-policy distillation: the student writes, its teacher says how likely each of its tokens was.

In: prompts, a student, and a teacher: a checkpoint beside it, or a vLLM server. Out: a trainer of TRL that is ready to
run. We only wire: `DistillationTrainer` for a checkpoint, the experimental `ServerDistillationTrainer` for a server, both of
the TRL the extra `train` pins. Refused before a model is loaded: another TRL, a server without the package `vllm` in this
environment (TRL insists), a divergence the server mode cannot compute, and tokenizers that differ, because the teacher is
asked about the student's token ids.
Rejected: a loop of our own. Generation beside training, its memory and its servers are what TRL is kept up for.
"""

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Self

from datasets.arrow_dataset import Dataset
from pydantic import Field, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from synthgen.errors import UsageError
from synthgen.recipe.model import Strict
from synthgen.train.conversation import chat
from synthgen.train.local_teacher import load_teacher
from synthgen.train.tokenizers import load_tokenizer, require_same
from synthgen.types import Message

__all__ = ["OnPolicyConfig", "on_policy_trainer", "require_trl"]

_TRL = "1.16"
_EXPERIMENTAL = "trl.experimental.server_distillation"


class OnPolicyConfig(Strict):
    """`beta`: 0 is the forward KL, 1 the reverse, between them the Jensen-Shannon divergence.

    `teacher` is a checkpoint; with `server` (base URL of `vllm serve` running it) it names the tokenizer alone, and the
    divergence is computed over the `top` likeliest tokens: of the reverse one, only the token the student wrote.
    """

    teacher: str
    server: str | None = None
    beta: Annotated[float, Field(ge=0, le=1)] = 1.0
    top: Annotated[int, Field(ge=1)] = 1
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    cpu: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.server is not None and self.beta > 0 and self.top > 1:
            raise ValueError(
                "a server gives no reverse KL over several tokens: set top: 1, or beta: 0 (forward KL, with a tail)"
            )
        return self


def require_trl() -> None:
    """Nothing, if the TRL this module was written against is installed.

    Raises:
        UsageError: it is not.
    """
    try:
        found = version("trl")
    except PackageNotFoundError as error:
        raise UsageError("on-policy distillation needs TRL: pip install 'synthgen[train]'") from error
    if not f"{found}.".startswith(f"{_TRL}."):
        raise UsageError(
            f"on-policy distillation is wired to TRL {_TRL}, found {found}: its trainers change between minor versions; "
            "pip install 'synthgen[train]'"
        )


def on_policy_trainer(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    config: OnPolicyConfig,
    out: Path,
) -> Trainer:
    """A trainer of TRL; `.train()` runs it, `.save_model()` keeps the student. `prompts` end with what is to be answered.

    Raises:
        UsageError: something of it is not available, or the tokenizers differ.
        SourceError: there is no such teacher.
    """
    require_trl()
    if config.server is not None and find_spec("vllm") is None:
        raise UsageError(
            "a teacher behind a vLLM server needs the package `vllm` here too, although it is only asked over HTTP (TRL's "
            "ServerDistillationTrainer checks for it): pip install vllm, or leave `server` out and run the checkpoint here"
        )
    require_same(load_tokenizer(config.teacher), tokenizer)
    dataset = Dataset.from_dict({"prompt": [chat(prompt) for prompt in prompts]})
    arguments = {
        "output_dir": str(out),
        "beta": config.beta,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "max_steps": config.max_steps,
        "per_device_train_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "use_cpu": config.cpu,
        "bf16": not config.cpu,
        "seed": config.seed,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
    }
    if config.server is None:
        return _local(student, tokenizer, dataset, config, arguments)
    return _served(student, tokenizer, dataset, config, arguments)


def _local(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    config: OnPolicyConfig,
    arguments: dict[str, object],
) -> Trainer:
    module = import_module("trl")
    teacher = load_teacher(config.teacher).model
    trainer: Trainer = module.DistillationTrainer(
        model=student,
        teacher_model=teacher.to(student.dtype),
        args=module.DistillationConfig(**arguments),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    return trainer


def _served(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    config: OnPolicyConfig,
    arguments: dict[str, object],
) -> Trainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental is why TRL is pinned
        module = import_module(_EXPERIMENTAL)
    trainer: Trainer = module.ServerDistillationTrainer(
        model=student,
        args=module.ServerDistillationConfig(
            **arguments, teacher_model_server_url=config.server, loss_top_k=config.top, loss_add_tail=True
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    return trainer
