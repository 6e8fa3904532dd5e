"""Filter chains: a YAML list of filters. `running` runs them.

In: the name or path of a chain file. Out: a `Chain`. Guarantees: a mistake in the file, or a file it names that is not
there, is reported as `file:line: key: what is wrong`; no path is part of a digest. Loading `none` loads no data frames: a
run that only asks needs none.

    name: my_chain
    version: 1
    description: what it is for
    steps:
      - length: {min_chars: 20}
      - pii: {kinds: [email], on_reject: flag, id: mailboxes}
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import BaseModel, Field

from synthgen.assets import find_asset, suggest
from synthgen.dataclasses import dataclass
from synthgen.errors import RecipeError, UsageError
from synthgen.plugins import Plugin, load_plugin
from synthgen.recipe.model import NAME, Strict
from synthgen.recipe.yaml_file import Document, dotted, read_yaml, validate
from synthgen.types import JSONValue, digest

if TYPE_CHECKING:
    import polars as pl

    from synthgen.refine.verdict import Verdicts

__all__ = ["Chain", "ChainStep", "OnReject", "load_chain"]

OnReject = Literal["drop", "flag", "route"]
Run = Callable[["pl.DataFrame", BaseModel], "Verdicts"]


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that a parameter names. `copy_name`: of its copy in a run folder; `digest`: sha256 of what it holds."""

    parameter: str
    written: str
    path: Path
    copy_name: str
    digest: str

    @property
    def portable(self) -> str:
        """As it is written, without a place on this machine."""
        path = Path(self.written).expanduser()
        return path.name if path.is_absolute() else self.written


@dataclass(frozen=True, slots=True)
class ChainStep:
    """One filter with its parameters. `route` rejects like `drop`; the word is kept for whoever sorts the rejects."""

    id: str
    filter: str
    params: BaseModel
    on_reject: OnReject
    run: Run
    version: int
    reads: tuple[str, ...] = ()
    files: tuple[NamedFile, ...] = ()

    def as_json(self) -> dict[str, JSONValue]:
        """What the manifest says of it."""
        digests: dict[str, JSONValue] = {file.parameter: file.digest for file in self.files}
        return {
            "id": self.id,
            "filter": self.filter,
            "version": self.version,
            "params": self._params({file.parameter: file.portable for file in self.files}),
            "on_reject": self.on_reject,
            **({"files": digests} if digests else {}),
        }

    def identity(self) -> list[JSONValue]:
        """What decides its verdicts: of a file what it holds, not where it lies."""
        params = self._params({file.parameter: file.digest for file in self.files})
        return [self.id, self.filter, self.version, params, self.on_reject]

    def _params(self, files: Mapping[str, str]) -> JSONValue:
        return _plain({**self.params.model_dump(), **files})


@dataclass(frozen=True, slots=True)
class Chain:
    """Filters in order. `digest` changes with whatever can change a verdict: steps, parameters, filter versions."""

    name: str
    version: int
    description: str
    steps: tuple[ChainStep, ...]
    digest: str

    @property
    def files(self) -> tuple[NamedFile, ...]:
        """Every file that a step names."""
        return tuple(file for step in self.steps for file in step.files)

    def as_json(self) -> dict[str, JSONValue]:
        """What the manifest says of it: enough to know whether two sets were filtered alike, and where not."""
        steps: list[JSONValue] = [step.as_json() for step in self.steps]
        return {"name": self.name, "version": self.version, "digest": self.digest, "steps": steps}


class _Head(Strict):
    """The keys of a chain file besides its steps' parameters."""

    name: Annotated[str, Field(pattern=NAME)]
    version: Annotated[int, Field(ge=1)]
    description: str = ""
    licence: str = ""
    source: str = ""
    steps: Annotated[list[JSONValue], Field(min_length=1)]


class _StepOptions(Strict):
    """What the chain itself takes out of a step's mapping."""

    id: Annotated[str, Field(pattern=NAME)] | None = None
    on_reject: OnReject = "drop"


def load_chain(name_or_path: str, beside: Path | None = None, *, copies: Path | None = None) -> Chain:
    """A bundled chain by name, a user's by path (relative to `beside`), or the empty chain `none`.

    Files that its steps name are copies in the folder `copies`, by `NamedFile.copy_name`, or lie beside the chain.

    Raises:
        UsageError: no such chain.
        RecipeError: the file is wrong, or one that it names is not there; one line per problem, with file:line.
    """
    if name_or_path == "none":
        return Chain("none", 1, "No filters.", (), digest([]))
    path = find_asset("filters", name_or_path, beside=beside)
    document = read_yaml(path)
    head = validate(_Head, document)
    steps: list[ChainStep] = []
    for place, entry in enumerate(head.steps):
        plugin = _plugin(document, place, entry)
        step = _step(document, place, entry, plugin, partial(_read_file, path.parent, copies))
        if any(step.id == other.id for other in steps):
            raise RecipeError(
                f"{document.where(('steps', place))}: steps[{place}]: a second step with the id {step.id!r}; "
                "give one of them an `id`"
            )
        steps.append(step)
    identity: list[JSONValue] = [step.identity() for step in steps]
    return Chain(head.name, head.version, head.description, tuple(steps), digest(identity))


def _plugin(document: Document, place: int, entry: JSONValue) -> Plugin[Callable[..., object]]:
    from synthgen.refine.user_filter import as_filter

    where = f"{document.where(('steps', place))}: steps[{place}]"
    names = [entry] if isinstance(entry, str) else list(entry) if isinstance(entry, dict) else []
    if len(names) != 1:
        raise RecipeError(
            f"{where}: a step is one filter name with its parameters, such as `- length: {{min_chars: 20}}`"
        )
    try:
        return load_plugin("filter", names[0], adapt=as_filter)
    except UsageError as error:
        raise RecipeError(f"{where}: {error}") from error


def _step(
    document: Document,
    place: int,
    entry: JSONValue,
    plugin: Plugin[Callable[..., object]],
    read: Callable[[str, str, str], NamedFile],
) -> ChainStep:
    name = entry if isinstance(entry, str) else next(iter(cast(dict[str, JSONValue], entry)))
    given = entry[name] if isinstance(entry, dict) else None
    if given is None:
        given = {}
    if not isinstance(given, dict):
        at = document.where(("steps", place, name))
        raise RecipeError(f"{at}: steps[{place}].{name}: must be a mapping of parameters to values")
    own = {key: value for key, value in given.items() if key in _StepOptions.model_fields}
    rest = {key: value for key, value in given.items() if key not in own}
    _check_keys(document, place, name, rest, plugin)
    options = validate(_StepOptions, _only(document, place, name, own), at=("steps", place, name))
    params = validate(plugin.params, _only(document, place, name, rest), at=("steps", place, name))
    files: list[NamedFile] = []
    for parameter, inside in plugin.files:
        try:
            if (written := getattr(params, parameter)) is not None:
                files.append(read(parameter, written, inside))
        except OSError as error:
            key = ("steps", place, name, parameter)
            missing = isinstance(error, FileNotFoundError)
            told = f"there is no file {error.filename}" if missing else f"cannot be read: {error}"
            raise RecipeError(f"{document.where(key)}: {dotted(key)}: {told}") from error
    return ChainStep(
        options.id or name.rpartition(":")[2],
        name,
        params.model_copy(update={file.parameter: str(file.path) for file in files}),
        options.on_reject,
        cast(Run, plugin.run),
        plugin.version,
        plugin.reads,
        tuple(files),
    )


def _read_file(base: Path, copies: Path | None, parameter: str, written: str, inside: str) -> NamedFile:
    """The file that a parameter means, `inside` of what it names where that is a folder: its copy, or beside the chain.

    Raises:
        OSError: it cannot be read.
    """
    path = base / Path(written).expanduser()
    if path.is_dir():
        path /= inside
    copy_name = f"filters-{digest(['file', written])[:12]}-{inside}"
    if copies and (copies / copy_name).is_file():
        path = copies / copy_name
    with path.open("rb") as file:
        held = hashlib.file_digest(file, "sha256").hexdigest()
    return NamedFile(parameter, written, path, copy_name, held)


def _check_keys(
    document: Document,
    place: int,
    name: str,
    given: dict[str, JSONValue],
    plugin: Plugin[Callable[..., object]],
) -> None:
    """Unknown keys are reported here, because a step may also hold `id` and `on_reject`."""
    allowed = sorted([*plugin.params.model_fields, *_StepOptions.model_fields])
    problems = [
        f"{document.where(('steps', place, name, key))}: steps[{place}].{name}.{key}: unknown key"
        f"{suggest(key, allowed)}; allowed: {', '.join(allowed)}"
        for key in given
        if key not in allowed
    ]
    if problems:
        raise RecipeError("\n".join(problems))


def _only(document: Document, place: int, name: str, values: dict[str, JSONValue]) -> Document:
    """The document with nothing but `values` at that step, at the lines they had."""
    before: list[JSONValue] = [None] * place
    return Document(document.path, {"steps": [*before, {name: values}]}, document.lines)


def _plain(value: object) -> JSONValue:
    """JSON of a parameter; sets come out of pydantic in any order, a digest needs one."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
