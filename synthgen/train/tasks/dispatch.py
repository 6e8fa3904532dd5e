"""Which task a student's file is for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from synthgen.assets import suggest
from synthgen.errors import RecipeError
from synthgen.recipe.yaml_file import Document
from synthgen.train.config import StudentConfig, read_student, validated
from synthgen.train.metrics import Progress
from synthgen.train.story import StudentReport, train
from synthgen.train.tasks.chain import ChainReport, train_chain
from synthgen.train.tasks.classify import train_classification
from synthgen.train.tasks.config import ClassifyConfig, EmbedConfig, OnPolicyStudent
from synthgen.train.tasks.embed import train_embedding
from synthgen.train.tasks.folder import TaskReport
from synthgen.train.tasks.on_policy import train_on_policy
from synthgen.types import JSONValue

__all__ = ["TASKS", "Report", "train_file"]

TASKS = ("generate", "classify", "embed", "on_policy")
Report = StudentReport | TaskReport | ChainReport


def train_file(
    source: Path | str | Mapping[str, JSONValue],
    dataset: Path,
    out: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Train whatever a file describes; without `out`, into `students/<name>`.

    Raises:
        RecipeError: everything that is wrong with the file.
        UsageError, SourceError, PolicyError, StorageError: as its task has it.
    """
    document, folder = read_student(source, overrides)
    assert isinstance(document.value, dict)
    if "stages" in document.value:
        named = Path(document.path).stem
        return train_chain(
            document, folder, dataset, out or Path("students") / named, progress=progress, say=say
        )
    match _task(document):
        case "classify":
            classifier = validated(ClassifyConfig, document, folder)
            target = out or Path("students") / classifier.config.name
            return train_classification(classifier, dataset, target, progress=progress)
        case "embed":
            embedder = validated(EmbedConfig, document, folder)
            target = out or Path("students") / embedder.config.name
            return train_embedding(embedder, dataset, target, progress=progress)
        case "on_policy":
            student = validated(OnPolicyStudent, document, folder)
            target = out or Path("students") / student.config.name
            return train_on_policy(student, dataset, target, progress=progress)
        case _:
            loaded = validated(StudentConfig, document, folder)
            target = out or Path("students") / loaded.config.name
            return train(loaded, dataset, target, progress=progress, say=say)


def _task(document: Document) -> str:
    assert isinstance(document.value, dict)
    task = document.value.get("task", "generate")
    if task not in TASKS:
        near = suggest(str(task), list(TASKS))
        raise RecipeError(f"{document.where(('task',))}: task = {task!r} is none of {', '.join(TASKS)}{near}")
    return str(task)
