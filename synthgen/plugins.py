"""One table of everything that can be plugged in: sources, filters, providers.

In: a kind and a name. Out: a `Plugin` with its parameter model and its function. Built-ins stand in the table as
the same `EntryPoint` values an installed distribution would register under `synthgen.sources`,
`synthgen.filters` or `synthgen.providers`, and are resolved by the same code; a name of the form `module:attribute`
is resolved directly. Nothing is imported before it is asked for.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

from synthgen.assets import suggest
from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError

__all__ = ["Kind", "Plugin", "load_plugin", "plugin_names"]

Kind = Literal["source", "filter", "provider"]
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Plugin(Generic[F]):
    """A plug-in: `params` validates what the recipe says of it, `run` does the work.

    `reads`: shared columns that a filter profits from, computed once for all filters of a chain. `files`: parameters of a
    filter that name a file, each with the file that is meant in a folder; `run` gets the path of what was found.
    """

    name: str
    params: type[BaseModel]
    run: F
    version: int = 1
    reads: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()


def _built_in(kind: Kind, **targets: str) -> tuple[EntryPoint, ...]:
    return tuple(EntryPoint(name, target, f"synthgen.{kind}s") for name, target in targets.items())


_BUILT_IN: dict[Kind, tuple[EntryPoint, ...]] = {
    "source": _built_in(
        "source",
        jsonl="synthgen.sources.files:JSONL",
        csv="synthgen.sources.files:CSV",
        parquet="synthgen.sources.files:PARQUET",
        requests="synthgen.sources.requests:REQUESTS",
        inline="synthgen.sources.inline:INLINE",
        sample="synthgen.sources.sample:SAMPLE",
    ),
    "provider": _built_in(
        "provider",
        openai="synthgen.asking.providers:OPENAI",
        vllm="synthgen.asking.providers:VLLM",
        anthropic="synthgen.asking.providers:ANTHROPIC",
        azure="synthgen.asking.clouds:AZURE",
        bedrock="synthgen.asking.clouds:BEDROCK",
        vertex="synthgen.asking.clouds:VERTEX",
        local="synthgen.asking.local:LOCAL",
    ),
    "filter": _built_in(
        "filter",
        length="synthgen.refine.filters.shape:LENGTH",
        truncation="synthgen.refine.filters.shape:TRUNCATION",
        json_schema="synthgen.refine.filters.shape:JSON_SCHEMA",
        repetition="synthgen.refine.filters.repetition:REPETITION",
        refusal="synthgen.refine.filters.phrases:REFUSAL",
        leakage="synthgen.refine.filters.phrases:LEAKAGE",
        echo="synthgen.refine.filters.phrases:ECHO",
        language="synthgen.refine.filters.language:LANGUAGE",
        secrets="synthgen.refine.filters.private:SECRETS",
        pii="synthgen.refine.filters.private:PII",
        one_of="synthgen.refine.filters.form:ONE_OF",
        sections="synthgen.refine.filters.form:SECTIONS",
        symbols="synthgen.refine.filters.form:SYMBOLS",
        tool_calls="synthgen.refine.filters.form:TOOL_CALLS",
        tokens="synthgen.refine.filters.tokens:TOKENS",
        toxicity="synthgen.refine.filters.toxicity:TOXICITY",
        flagged_words="synthgen.refine.filters.flagged:FLAGGED_WORDS",
        consistency="synthgen.refine.filters.compared:CONSISTENCY",
        grounded="synthgen.refine.filters.grounding:GROUNDED",
        supported="synthgen.refine.filters.grounding:SUPPORTED",
        score="synthgen.refine.filters.compared:SCORE",
        math_answer="synthgen.refine.filters.math_answer:MATH_ANSWER",
        code_tests="synthgen.refine.filters.code_tests:CODE_TESTS",
    ),
}


def _entries(kind: Kind) -> dict[str, EntryPoint]:
    installed = {entry.name: entry for entry in entry_points(group=f"synthgen.{kind}s")}
    return {**installed, **{entry.name: entry for entry in _BUILT_IN[kind]}}


def plugin_names(kind: Kind) -> list[str]:
    """Every name of one kind, sorted: built in and installed."""
    return sorted(_entries(kind))


def load_plugin(
    kind: Kind,
    name: str,
    *,
    adapt: Callable[[str, Callable[..., object]], Plugin[Callable[..., object]]] | None = None,
) -> Plugin[Callable[..., object]]:
    """The plug-in of that name, imported now. `adapt` makes one of a plain function, where the kind has a way to.

    Raises:
        UsageError: unknown name (with the nearest known one), or the target is not a `Plugin`.
    """
    # What is built in wins; looking through everything installed takes as long as all the rest of loading it.
    entry = next((entry for entry in _BUILT_IN[kind] if entry.name == name), None)
    entry = entry or _entries(kind).get(name) or (EntryPoint(name, name, "") if ":" in name else None)
    if entry is None:
        known = plugin_names(kind)
        raise UsageError(f"unknown {kind} {name!r}{suggest(name, known)}; known: {', '.join(known)}")
    try:
        plugin = entry.load()
    except Exception as error:  # whatever a user's module raises
        told = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        raise UsageError(f"{kind} {name!r} cannot be imported from {entry.value}: {told}{error}") from error
    if isinstance(plugin, Plugin):
        return plugin
    if adapt is not None and callable(plugin) and not isinstance(plugin, type):
        return adapt(name, plugin)
    also = ", nor a function or an object that can be called" if adapt else ""
    raise UsageError(f"{kind} {name!r}: {entry.value} is not a synthgen.plugins.Plugin{also}")
