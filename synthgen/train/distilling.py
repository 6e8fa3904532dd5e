"""What the section `loss` needs before the first step, for the engine: two calls.

In: the loss of a student's file, the student, its tokenizer, its examples. Out: `soft_examples`, the examples with a
teacher's distributions, and `objective_for`, the loss the engine calls. Guarantees: a teacher's tokenizer is the student's, or
nothing is trained; projectors hang on the student while it is trained, so that its optimiser, its checkpoints and its
device are theirs too, and are taken off by `without_projectors` before it is saved.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from synthgen.errors import UsageError
from synthgen.train.checkpoints import find_checkpoint
from synthgen.train.examples import Example
from synthgen.train.local_teacher import load_teacher
from synthgen.train.losses.config import LossConfig, TopKConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.soft_labels import Labelled, read_captures, soften
from synthgen.train.tokenizers import load_tokenizer, require_same

__all__ = ["objective_for", "soft_examples", "without_projectors"]

_PROJECTORS = "synthgen_projectors"


def soft_examples(
    config: TopKConfig,
    examples: Iterable[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    run: Path | None,
    path: Callable[[str], Path] = Path,
) -> Labelled:
    """The examples with the captured logprobs of `run`, or of the folder the config names; `path` resolves its paths.

    Raises:
        UsageError: there is no such folder, ids are not the student's, or nothing fits.
        SourceError: the folder holds no captures.
    """
    if config.logprobs is None and run is None:
        raise UsageError(
            "loss.kd: the data is no run folder, so name the folder of captures with `loss.kd.logprobs`"
        )
    folder = path(config.logprobs) if config.logprobs is not None else Path(run or "") / "logprobs"
    captures = read_captures(folder)
    named = config.tokenizer
    if named is not None and path(named).exists():
        named = str(path(named))
    captures.require_tokenizer(tokenizer, named)
    return soften(examples, captures, tokenizer, k=config.k, unaligned=config.unaligned)


def objective_for(
    config: LossConfig,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    path: Callable[[str], Path] = Path,
) -> Distillation:
    """The loss of a student, with its teacher loaded beside it where it has one.

    Raises:
        UsageError: teacher and student have different tokenizers.
        SourceError: there is no such teacher.
    """
    if config.teacher is None:
        return Distillation(config)
    source = find_checkpoint(config.teacher, path)
    require_same(load_tokenizer(source), tokenizer)
    text = student.config.get_text_config()
    objective = Distillation(
        config, teacher=load_teacher(source), width=text.hidden_size, layers=text.num_hidden_layers
    )
    if objective.maps is not None:
        student.add_module(_PROJECTORS, objective.maps.to(device=student.device, dtype=student.dtype))
    return objective


def without_projectors(student: PreTrainedModel) -> PreTrainedModel:
    """The student as it is saved."""
    if hasattr(student, _PROJECTORS):
        delattr(student, _PROJECTORS)
    return student
