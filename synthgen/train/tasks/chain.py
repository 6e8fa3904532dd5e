"""The whole way of a chain: one file, several students, one after the other.

Every stage is a student's file of its own, checked before the first one is trained; a stage whose student is there is not
trained again. Relative paths start from the folder of the chain's file, as in any other.
"""

from collections.abc import Callable
from pathlib import Path

from synthgen.dataclasses import dataclass
from synthgen.errors import RecipeError
from synthgen.recipe.yaml_file import Document, validate
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
        SourceError, PolicyError, StorageError: as in `story.train`.
    """
    stages = plan_chain(validate(ChainConfig, document), out.absolute())
    files = {stage.name: _file(stage, document, folder) for stage in stages}
    reports: dict[str, StudentReport] = {}

    def run(stage: Stage) -> None:
        if say is not None:
            say(f"stage {stage.name}")
        reports[stage.name] = train(files[stage.name], dataset, out / stage.name, progress=progress, say=say)

    # `train` itself knows what is finished, and refuses a folder that was made from something else.
    for _ in run_chain(stages, run, lambda stage: False):
        pass
    return ChainReport(out, tuple(reports.values()))


def _file(stage: Stage, document: Document, folder: Path) -> LoadedStudent:
    """The stage as a student's file; errors name the chain's file and the stage."""
    written = Document(f"{document.path}: stage {stage.name}", dict(stage.student), {})
    try:
        return validated(StudentConfig, written, folder)
    except RecipeError as error:
        # Its keys stand in two places of the chain's file, `student` and `set`: a line would be a guess.
        raise RecipeError(str(error).replace(f"stage {stage.name}:1:", f"stage {stage.name}:")) from error
