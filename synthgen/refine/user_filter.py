"""A plain Python function as a filter: `- mypackage.checks:polite: {words: 3}` in a chain.

In: a function. Out: a `Plugin` whose parameters are the function's keyword-only arguments, checked by their
annotations. Two forms:

    def polite(prompt: str, completion: str, *, words: int = 3) -> str | None: ...       a row: named by columns
    def polite(frame: pl.DataFrame, *, words: int = 3) -> Verdicts | pl.Series: ...      the whole frame

A row function returns None (kept), a reason, or (reason or None, score). Guarantee: an exception on one row rejects
that row as `filter_error`; the plug-in's version is a digest of the function's source, so that a changed function
changes the chain's digest.
Rejected: a base class to inherit from. A function with named columns says the same and can be tested alone.
"""

import inspect
from collections.abc import Callable, Iterator
from hashlib import blake2b

import polars as pl
from pydantic import BaseModel, ConfigDict, create_model

from synthgen.errors import UsageError
from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.verdict import VIEW, Verdicts

__all__ = ["as_filter"]

Said = tuple[str | None, float | None, str | None]


def as_filter(name: str, function: Callable[..., object]) -> Plugin[Callable[..., object]]:
    """The plug-in of a user's function.

    Raises:
        UsageError: its arguments are neither columns of the view nor `frame`.
    """
    arguments = inspect.signature(function, eval_str=True).parameters.values()
    columns = [argument.name for argument in arguments if argument.kind is not argument.KEYWORD_ONLY]
    unknown = [column for column in columns if column not in VIEW]
    if columns != ["frame"] and (unknown or not columns):
        raise UsageError(
            f"filter {name!r}: takes {', '.join(columns) or 'nothing'}; a filter takes `frame`, or by name any of "
            f"{', '.join(VIEW)}, and its parameters after `*`"
        )
    options = {
        argument.name: (
            object if argument.annotation is argument.empty else argument.annotation,
            ... if argument.default is argument.empty else argument.default,
        )
        for argument in arguments
        if argument.kind is argument.KEYWORD_ONLY
    }
    params = _params(name, options)

    def run(frame: pl.DataFrame, given: BaseModel) -> Verdicts:
        values = {key: getattr(given, key) for key in options}
        if columns == ["frame"]:
            return _by_frame(name, function, frame, values)
        return _by_row(function, frame.select(columns), values)

    return Plugin(name, params, run, _version(function))


def _params(name: str, options: dict[str, tuple[object, object]]) -> type[BaseModel]:
    class Params(Strict):
        model_config = ConfigDict(arbitrary_types_allowed=True)

    return create_model(name, __base__=Params, **options)  # type: ignore[call-overload,no-any-return]  # fields by name


def _by_frame(
    name: str, function: Callable[..., object], frame: pl.DataFrame, values: dict[str, object]
) -> Verdicts:
    try:
        said = function(frame, **values)
    except Exception as error:  # whatever a user's code raises
        raise UsageError(f"filter {name!r} failed: {type(error).__name__}: {error}") from error
    verdicts = Verdicts(said) if isinstance(said, pl.Series) else said
    if not isinstance(verdicts, Verdicts) or len(verdicts.reason) != frame.height:
        raise UsageError(f"filter {name!r}: must return Verdicts or a Series of {frame.height} reasons")
    return verdicts


def _by_row(function: Callable[..., object], rows: pl.DataFrame, values: dict[str, object]) -> Verdicts:
    said = list(_said(function, rows, values))
    reason, score, detail = zip(*said, strict=True) if said else ((), (), ())
    return Verdicts(
        pl.Series("reason", reason, pl.String),
        pl.Series("score", score, pl.Float64),
        pl.Series("detail", detail, pl.String),
    )


def _said(function: Callable[..., object], rows: pl.DataFrame, values: dict[str, object]) -> Iterator[Said]:
    for row in rows.iter_rows():
        try:
            answer = function(*row, **values)
        except Exception as error:  # whatever a user's code raises: the row's fault, not the run's
            yield "filter_error", None, type(error).__name__
            continue
        match answer:
            case None | str():
                yield answer, None, None
            case (None | str() as reason, int() | float() | None as score):
                yield reason, None if score is None else float(score), None
            case _:
                yield "filter_error", None, f"returned {type(answer).__name__}, not a reason"


def _version(function: Callable[..., object]) -> int:
    """Changes with the text of the function; 1 where there is none to read."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return 1
    return int.from_bytes(blake2b(source.encode(), digest_size=6).digest())
