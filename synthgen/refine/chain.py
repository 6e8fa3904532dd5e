"""Filter chains: a YAML list of filters, and running them over a frame.

In: the name or path of a chain file; a frame of the view. Out: a `Chain`, and one line of verdict per row. Guarantees:
a mistake in the file is reported as `file:line: key: what is wrong`; filters run in the order of the file, and each
sees only the rows that are still alive; the same chain and frame give the same verdicts.
Rejected: scoring all rows with all filters and deciding afterwards (the later filters are the expensive ones, and
most rejected rows fail a cheap one).

    name: my_chain
    version: 1
    description: what it is for
    steps:
      - length: {min_chars: 20}
      - pii: {kinds: [email], on_reject: flag, id: mailboxes}
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

import polars as pl
from pydantic import BaseModel, Field

from synthgen.assets import find_asset, suggest
from synthgen.errors import RecipeError, UsageError
from synthgen.plugins import Plugin, load_plugin
from synthgen.recipe.model import NAME, Strict
from synthgen.recipe.yaml_file import Document, read_yaml, validate
from synthgen.refine.filters.text import SHARED
from synthgen.refine.user_filter import as_filter
from synthgen.refine.verdict import VIEW, Verdicts, view_of
from synthgen.types import JSONValue, digest

__all__ = ["RESULT", "Chain", "ChainStep", "OnReject", "load_chain", "run_chain"]

OnReject = Literal["drop", "flag", "route"]
Run = Callable[[pl.DataFrame, BaseModel], Verdicts]

_SCORE = pl.Struct({"name": pl.String, "score": pl.Float64})
RESULT = pl.Schema(
    {
        "id": pl.String(),
        "stage": pl.String(),  # filter:<step id> of the first step that rejects, null where the row is kept
        "reason": pl.String(),
        "score": pl.Float64(),  # that step's score; 1 where it states a fact and measures nothing
        "threshold": pl.Float64(),  # the bound the score broke; 0 for a fact
        "detail": pl.String(),
        "scores": pl.List(
            pl.Struct({"name": pl.String(), "score": pl.Float64})
        ),  # of every step that saw the row
        "flags": pl.List(pl.String),  # <step id>:<reason> of the steps that only flag
    }
)


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

    def as_json(self) -> dict[str, JSONValue]:
        """What the manifest says of it."""
        return {
            "id": self.id,
            "filter": self.filter,
            "version": self.version,
            "params": _plain(self.params.model_dump()),
            "on_reject": self.on_reject,
        }


@dataclass(frozen=True, slots=True)
class Chain:
    """Filters in order. `digest` changes with whatever can change a verdict: steps, parameters, filter versions."""

    name: str
    version: int
    description: str
    steps: tuple[ChainStep, ...]
    digest: str

    def as_json(self) -> dict[str, JSONValue]:
        """What the manifest says of it: enough to know whether two sets were filtered alike, and where not."""
        steps: list[JSONValue] = [step.as_json() for step in self.steps]
        return {"name": self.name, "version": self.version, "digest": self.digest, "steps": steps}


_REASONS = ("reason", "score", "threshold", "detail")
_REJECTED = pl.Schema({"row": pl.UInt32(), **{name: RESULT[name] for name in ("stage", *_REASONS)}})


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


def load_chain(name_or_path: str, beside: Path | None = None) -> Chain:
    """A bundled chain by name, a user's by path (relative to `beside`), or the empty chain `none`.

    Raises:
        UsageError: no such chain.
        RecipeError: the file is wrong; one line per problem, with file:line.
    """
    if name_or_path == "none":
        return Chain("none", 1, "No filters.", (), digest([]))
    document = read_yaml(find_asset("filters", name_or_path, beside=beside))
    head = validate(_Head, document)
    steps: list[ChainStep] = []
    identity: list[JSONValue] = []
    for place, entry in enumerate(head.steps):
        plugin = _plugin(document, place, entry)
        step = _step(document, place, entry, plugin)
        if any(step.id == other.id for other in steps):
            raise RecipeError(
                f"{document.where(('steps', place))}: steps[{place}]: a second step with the id {step.id!r}; "
                "give one of them an `id`"
            )
        steps.append(step)
        params = _plain(step.params.model_dump())
        identity.append([step.id, step.filter, plugin.version, params, step.on_reject])
    return Chain(head.name, head.version, head.description, tuple(steps), digest(identity))


def run_chain(chain: Chain, frame: pl.DataFrame) -> pl.DataFrame:
    """The `RESULT` of every row, in the frame's order: the first rejecting step, all scores, all flags.

    The frame has the columns of the view, or some of them: what is not there is null.

    Raises:
        UsageError: a filter cannot do its work here, or a user's function failed on the whole frame.
    """
    alive = view_of(frame).with_row_index("row")
    recalls = [place for place, step in enumerate(chain.steps) if step.filter == "score"]
    rejected = [pl.DataFrame(schema=_REJECTED)]
    scores = [pl.DataFrame(schema={"row": pl.UInt32, "scores": _SCORE})]
    flags = [pl.DataFrame(schema={"row": pl.UInt32, "flags": pl.String})]
    for place, step in enumerate(chain.steps):
        alive = alive.with_columns(
            SHARED[name](alive).alias(name) for name in step.reads if name not in alive.columns
        )
        judged = _apply(step, alive)
        if any(later > place for later in recalls):
            alive = _remember(step, alive, judged)
        scores.append(
            judged.filter(pl.col("score").is_not_null()).select(
                "row", scores=pl.struct(name=pl.lit(step.id), score="score")
            )
        )
        hit = pl.col("reason").is_not_null()
        if step.on_reject == "flag":
            flags.append(judged.filter(hit).select("row", flags=pl.lit(f"{step.id}:") + pl.col("reason")))
            continue
        # A fact has no measure of its own: found once where nothing of the kind is allowed.
        fact = pl.col("score").is_null()
        why = judged.filter(hit).with_columns(
            score=pl.when(fact).then(1.0).otherwise("score"),
            threshold=pl.when(fact).then(0.0).otherwise("threshold"),
        )
        rejected.append(why.select("row", pl.lit(f"filter:{step.id}").alias("stage"), *_REASONS))
        alive = alive.filter(judged["reason"].is_null())
    return _assemble(frame, rejected, scores, flags)


def _apply(step: ChainStep, alive: pl.DataFrame) -> pl.DataFrame:
    verdicts = step.run(alive.drop("row"), step.params)
    nothing = pl.Series([None] * alive.height, dtype=pl.String)

    def column(series: pl.Series | None, dtype: pl.DataType) -> pl.Series:
        return (nothing if series is None else series).cast(dtype)

    return pl.DataFrame(
        {
            "row": alive["row"],
            "reason": verdicts.reason.cast(pl.String),
            "score": column(verdicts.score, pl.Float64()),
            "threshold": column(verdicts.threshold, pl.Float64()),
            "detail": column(verdicts.detail, pl.String()),
        }
    )


def _remember(step: ChainStep, alive: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """The rows with this step's score among their scores, for a later step that cuts by it."""
    new = pl.struct(name=pl.lit(step.id), score=judged["score"])
    listed = (
        pl.when(judged["score"].is_not_null()).then(pl.concat_list(new)).otherwise(pl.lit([], VIEW["scores"]))
    )
    none = pl.lit([], VIEW["scores"])
    return alive.with_columns(scores=pl.concat_list(pl.col("scores").fill_null(none), listed))


def _assemble(
    frame: pl.DataFrame, rejected: list[pl.DataFrame], scores: list[pl.DataFrame], flags: list[pl.DataFrame]
) -> pl.DataFrame:
    out = frame.select(pl.col("id").cast(pl.String)).with_row_index("row")
    # Rows of later steps come later, so lists are in the chain's order.
    lists = [pl.concat(parts).group_by("row", maintain_order=True).agg(pl.all()) for parts in (scores, flags)]
    for part in (pl.concat(rejected), *lists):
        out = out.join(part, on="row", how="left", maintain_order="left")
    empty = [pl.col(name).fill_null(pl.lit([], RESULT[name])) for name in ("scores", "flags")]
    return out.with_columns(empty).select(RESULT.names()).cast(RESULT)


def _plugin(document: Document, place: int, entry: JSONValue) -> Plugin[Callable[..., object]]:
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
    document: Document, place: int, entry: JSONValue, plugin: Plugin[Callable[..., object]]
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
    step_id = options.id or name.rpartition(":")[2]
    return ChainStep(
        step_id, name, params, options.on_reject, cast(Run, plugin.run), plugin.version, plugin.reads
    )


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
