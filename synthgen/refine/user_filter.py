"""A plain Python function as a filter: `- mypackage.checks:polite: {words: 3}` in a chain.

In: a function, or an object that can be called. Out: a `Plugin` whose parameters are the function's keyword-only arguments, checked by their
annotations. Two forms:

    def polite(prompt: str, completion: str, *, words: int = 3) -> str | None: ...       a row: named by columns
    def polite(frame: pl.DataFrame, *, words: int = 3) -> Verdicts | pl.Series: ...      the whole frame

A row function returns None (kept), a reason, or (reason or None, score). It gets `fields` and `scores` as mappings, `tools`,
`tool_calls` and `response_schema` as what their JSON says; a frame function gets the columns of the view as they are.
Guarantee: an exception on one row rejects that row as `filter_error`, but a function that fails on each of the first
rows it sees stops the command: it is wrong, not the rows. The plug-in's version is a digest of the function's source, so that a changed function
changes the chain's digest.
Rejected: a base class to inherit from. A function with named columns says the same and can be tested alone.
"""

import inspect
from collections.abc import Callable, Iterator
from hashlib import blake2b

import orjson
import polars as pl
from pydantic import BaseModel, ConfigDict, create_model

from synthgen.errors import UsageError
from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.verdict import VIEW, Verdicts

__all__ = ["as_filter"]

_FIRST_ROWS = 5  # all of which fail: a wrong function
_DETAIL_CHARS = 200
_JSON = ("tools", "tool_calls", "response_schema")
Said = tuple[str | None, float | None, str | None]


def as_filter(name: str, function: Callable[..., object]) -> Plugin[Callable[..., object]]:
    """The plug-in of a user's function.

    Raises:
        UsageError: its arguments are neither columns of the view nor `frame`, or it gives no answer when it is called.
    """
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise UsageError(
            f"filter {name!r} is asynchronous; a filter is a plain function (`def`, not `async def`)"
        )
    if inspect.isgeneratorfunction(called):
        raise UsageError(f"filter {name!r} yields; a filter returns None or a reason")
    try:
        arguments = inspect.signature(function, eval_str=True).parameters.values()
    except (ValueError, TypeError, NameError) as error:
        raise UsageError(f"filter {name!r}: its arguments cannot be read: {error}") from error
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
    rows = _Rows(name, function, columns)

    def run(frame: pl.DataFrame, given: BaseModel) -> Verdicts:
        values = {key: getattr(given, key) for key in options}
        if columns == ["frame"]:
            return _by_frame(name, function, frame, values)
        return rows.judge(frame, values)

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


class _Rows:
    """A function of a row, called for one after the other."""

    def __init__(self, name: str, function: Callable[..., object], columns: list[str]) -> None:
        self._name, self._function, self._columns = name, function, columns
        self._failed: int | None = 0  # of the rows so far, while it is all of them

    def judge(self, frame: pl.DataFrame, values: dict[str, object]) -> Verdicts:
        said = list(self._said(frame, values))
        reason, score, detail = zip(*said, strict=True) if said else ((), (), ())
        return Verdicts(
            pl.Series("reason", reason, pl.String),
            pl.Series("score", score, pl.Float64),
            pl.Series("detail", detail, pl.String),
        )

    def _said(self, frame: pl.DataFrame, values: dict[str, object]) -> Iterator[Said]:
        given = [_given(name, frame[name]) for name in self._columns]
        for row_id, row in zip(frame["id"], zip(*given, strict=True), strict=True):
            try:
                answer = self._function(*row, **values)
            except Exception as error:  # whatever a user's code raises: the row's fault, not the run's
                yield self._error(row_id, f"{type(error).__name__}: {error}"[:_DETAIL_CHARS])
                continue
            match answer:
                case None | str():
                    yield answer, None, None
                case (None | str() as reason, int() | float() | None as score):
                    yield reason, None if score is None else float(score), None
                case _:
                    yield self._error(row_id, f"returned {type(answer).__name__}, not a reason")
                    continue
            self._failed = None

    def _error(self, row_id: str | None, detail: str) -> Said:
        if self._failed is not None:
            self._failed += 1
            if self._failed == _FIRST_ROWS:
                raise UsageError(
                    f"filter {self._name!r} failed on each of the first {_FIRST_ROWS} rows; on row {row_id}: {detail}"
                )
        return "filter_error", None, detail


def _given(name: str, column: pl.Series) -> list[object]:
    """The values of a column as a person would want them."""
    if name == "scores":
        return [{one["name"]: one["score"] for one in row or []} for row in column.to_list()]
    if name in ("fields", *_JSON):
        empty: object = {} if name == "fields" else None
        return [orjson.loads(text) if text else empty for text in column.to_list()]
    return column.to_list()


def _version(function: Callable[..., object]) -> int:
    """Changes with the text of the function, or of the object's class; 1 where there is none to read."""
    written = getattr(function, "func", function)  # of a `partial`
    try:
        source = inspect.getsource(written if inspect.isroutine(written) else type(written))
    except (OSError, TypeError):
        return 1
    return int.from_bytes(blake2b(source.encode(), digest_size=6).digest())
