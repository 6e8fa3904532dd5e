"""The whole way of a chain: one file, several students, one after the other.

Every stage is a student's file of its own, checked before the first one is trained; a stage whose student is there is not
trained again. Relative paths start from the folder of the chain's file, as in any other.
"""

from collections.abc import Callable
from pathlib import Path

from synthgen.dataclasses import dataclass
from synthgen.errors import RecipeError, SourceError
from synthgen.recipe.yaml_file import Document, validate
from synthgen.train.base import require_base
from synthgen.train.config import LoadedStudent, StudentConfig, validated
from synthgen.train.metrics import Progress
from synthgen.train.stages import ChainConfig, Stage, plan_chain, run_chain
from synthgen.train.story import StudentReport, train

__all__ = ["ChainReport", "train_chain"]


@dataclass(frozen=True, slots=True)
class ChainReport:
    """The reports of its stages, in order; `out` is the folder of them all."""

    out: Path
    stages: tuple[StudentReport, ...]


def train_chain(
    document: Document,
    folder: Path,
    dataset: Path,
    out: Path,
    *,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> ChainReport:
    """Train every stage of a chain on a dataset, each into a folder of its own below `out`.

    Raises:
        RecipeError: the file, or that of a stage, is wrong; nothing was trained.
        UsageError: stages refer to what is not there.
        SourceError: the base of a stage is not there; nothing was trained. Else as in `story.train`, like
            PolicyError, StorageError.
    """
    stages = plan_chain(validate(ChainConfig, document), out.absolute())
    files = {stage.name: _file(stage, document, folder, out.absolute()) for stage in stages}
    reports: dict[str, StudentReport] = {}

    def run(stage: Stage) -> None:
        if say is not None:
            say(f"stage {stage.name}")
        reports[stage.name] = train(files[stage.name], dataset, out / stage.name, progress=progress, say=say)

    # `train` itself knows what is finished, and refuses a folder that was made from something else.
    for _ in run_chain(stages, run, lambda stage: False):
        pass
    return ChainReport(out, tuple(reports.values()))


def _file(stage: Stage, document: Document, folder: Path, out: Path) -> LoadedStudent:
    """The stage as a student's file; errors name the chain's file and the stage. What is below `out` an earlier one makes."""
    written = Document(f"{document.path}: stage {stage.name}", dict(stage.student), {})
    try:
        loaded = validated(StudentConfig, written, folder)
        if not loaded.path(loaded.config.base).is_relative_to(out):
            require_base(loaded)
    except (RecipeError, SourceError) as error:
        # Its keys stand in two places of the chain's file, `student` and `set`: a line would be a guess.
        told = str(error).replace(f"stage {stage.name}:1:", f"stage {stage.name}:")
        raise type(error)(told) from error
    return loaded
