"""On-policy distillation: the student writes, its teacher says how likely each of its tokens was.

In: prompts, a student, and a teacher: a checkpoint beside it, or a vLLM server. Out: a trainer of TRL that is ready to
run. We only wire: `DistillationTrainer` for a checkpoint, the experimental `ServerDistillationTrainer` for a server, both of
the TRL the extra `train` pins. Refused before a model is loaded: another TRL, a divergence or a temperature the server mode
cannot compute, and tokenizers that differ, because the teacher is asked about the student's token ids. The server's package,
`vllm`, is not needed beside the student.
Rejected: a loop of our own. Generation beside training, its memory and its servers are what TRL is kept up for.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Self

from datasets.arrow_dataset import Dataset
from pydantic import Field, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback

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
    divergence is computed over the `top` likeliest tokens: of the reverse one, only the token the student wrote. A server scores
    at temperature 1, whatever it is asked for, so the student writes at 1 as well.
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
        if self.server is not None and self.temperature != 1:
            raise ValueError(
                "a vLLM server scores at temperature 1, so temperature has to be 1 with a server"
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
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trainer:
    """A trainer of TRL; `.train()` runs it, `.save_model()` keeps the student. `prompts` end with what is to be answered.

    Raises:
        UsageError: something of it is not available, no server answers, or the tokenizers differ.
        SourceError: there is no such teacher.
    """
    require_trl()
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
        "disable_tqdm": True,
    }
    make = _local if config.server is None else _served
    trainer = make(student, tokenizer, dataset, config, arguments)
    trainer.remove_callback(PrinterCallback)  # it writes to stdout
    for callback in callbacks:
        trainer.add_callback(callback)
    return trainer


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
    assert config.server is not None
    url = config.server.rstrip("/").removesuffix("/v1")  # TRL adds it
    made = module.ServerDistillationConfig(
        **arguments, teacher_model_server_url=url, loss_top_k=config.top, loss_add_tail=True
    )
    try:
        with _without_vllm():
            trainer: Trainer = module.ServerDistillationTrainer(
                model=student, args=made, train_dataset=dataset, processing_class=tokenizer
            )
    except OSError as error:
        raise UsageError(f"on_policy.server: no vLLM server answers at {url}: {error}") from error
    return trainer


@contextmanager
def _without_vllm() -> Iterator[None]:
    """Let TRL's client be made where `vllm` is not installed: to ask for scores it needs HTTP alone.

    It insists on the package, because it can also send weights to a server; TRL 1.16, to which this module is pinned.
    """
    names = vars(import_module("trl.generation.vllm_client"))
    asked = names["is_vllm_available"]
    names["is_vllm_available"] = lambda *_, **__: True
    try:
        yield
    finally:
        names["is_vllm_available"] = asked
