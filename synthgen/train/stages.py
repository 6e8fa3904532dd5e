"""A chain of students: through teachers of sizes in between, and rounds of learning from oneself.

    student: {base: SmolLM2-135M, loss: {logits: {weight: 0.5}}, data: {max_length: 512}}
    stages:
      - {name: middle, set: {base: SmolLM2-360M, loss.teacher: SmolLM2-1.7B}}
      - {name: small, set: {loss.teacher: "stage:middle"}}
      - {name: again, rounds: 3, set: {loss.teacher: "stage:small"}}

In: one YAML file. Out: the stages in order, each a student's file of its own, with `stage:NAME` replaced by the folder of
that student. In a stage with `rounds`, every round but the first has the student of the round before as its teacher, and
starts from the stage's base again. Guarantees: a chain that names a stage it does not have yet is refused before anything
is trained; a stage that is finished is not trained again, so the same command goes on where it stopped.

Source: Mirzadeh et al. 2020, "Improved knowledge distillation via teacher assistant"; Furlanello et al. 2018,
"Born-again neural networks".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated

from pydantic import Field

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.recipe.model import NAME, Strict
from synthgen.types import JSONValue

__all__ = ["ChainConfig", "Stage", "StageConfig", "plan_chain", "run_chain"]

_REFERENCE = "stage:"


class StageConfig(Strict):
    """One stage: the chain's `student` with the dotted keys of `set`, trained `rounds` times."""

    name: Annotated[str, Field(pattern=NAME)]
    rounds: Annotated[int, Field(ge=1)] = 1
    set: dict[str, JSONValue] = Field(default_factory=dict)


class ChainConfig(Strict):
    """What all students share, and how they differ; see the module's example."""

    student: dict[str, JSONValue]
    stages: Annotated[list[StageConfig], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Stage:
    """One student to train. `student` is what its own YAML file would hold; it ends up in `folder`."""

    name: str
    student: Mapping[str, JSONValue]
    folder: Path


def plan_chain(chain: ChainConfig, out: Path) -> list[Stage]:
    """The stages of a chain, rounds written out, each in a folder of its own below `out`.

    Raises:
        UsageError: two stages of one name, a reference to a stage that does not come earlier, or rounds without a teacher.
    """
    folders: dict[str, Path] = {}
    stages: list[Stage] = []
    for config in chain.stages:
        previous: Path | None = None
        for number in range(config.rounds):
            name = config.name if config.rounds == 1 else f"{config.name}-{number + 1}"
            if name in folders or (number == 0 and config.name in folders):
                raise UsageError(f"stages: {name!r} is there twice")
            student = _merged(chain.student, config.set)
            if previous is not None:
                _teach(student, config.name, previous)
            resolved = _resolved(student, folders, config.name)
            assert isinstance(resolved, dict)
            stages.append(Stage(name, {**resolved, "name": name}, out / name))
            folders[name] = previous = out / name
        folders[config.name] = out / name  # the last round speaks for its stage
    return stages


def run_chain(
    stages: Sequence[Stage], train: Callable[[Stage], None], is_finished: Callable[[Stage], bool]
) -> Iterator[tuple[Stage, bool]]:
    """Train what is not finished, in order; yields each stage and whether it was trained now."""
    for stage in stages:
        finished = is_finished(stage)
        if not finished:
            train(stage)
        yield stage, not finished


def _merged(student: Mapping[str, JSONValue], changes: Mapping[str, JSONValue]) -> dict[str, JSONValue]:
    out = deepcopy(dict(student))
    for dotted, value in changes.items():
        *path, key = dotted.split(".")
        inner = out
        for part in path:
            below = inner.setdefault(part, {})
            if not isinstance(below, dict):
                raise UsageError(f"stages: {dotted}: {part!r} is no mapping")
            inner = below
        inner[key] = deepcopy(value)
    return out


def _teach(student: dict[str, JSONValue], name: str, teacher: Path) -> None:
    loss = student.get("loss")
    if not isinstance(loss, dict) or not isinstance(loss.get("teacher"), str):
        raise UsageError(
            f"stages: {name!r} has rounds but no `loss.teacher` whose place the student could take"
        )
    loss["teacher"] = str(teacher)


def _resolved(value: JSONValue, folders: Mapping[str, Path], name: str) -> JSONValue:
    if isinstance(value, dict):
        return {key: _resolved(inner, folders, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, folders, name) for inner in value]
    if isinstance(value, str) and value.startswith(_REFERENCE):
        wanted = value.removeprefix(_REFERENCE)
        if wanted not in folders:
            known = ", ".join(folders) or "none"
            raise UsageError(
                f"stages: {name!r} refers to {value!r}, which is no earlier stage (earlier: {known})"
            )
        return str(folders[wanted])
    return value
