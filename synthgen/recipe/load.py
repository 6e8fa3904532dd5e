"""A recipe file, plus overrides, to a validated `LoadedRecipe`.

In: a path or a mapping, `--set a.b=c` texts, the environment. Out: the recipe, its effective text (overrides
applied, `${ENV}` still unexpanded, so that no credential reaches disk) and its digest. Errors carry file:line.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import yaml
from pydantic import BaseModel, ValidationError

from synthgen.assets import suggest
from synthgen.dataclasses import dataclass
from synthgen.errors import RecipeError, UsageError
from synthgen.plugins import load_plugin, plugin_names
from synthgen.recipe.model import Recipe, SourceConfig, TeacherConfig
from synthgen.recipe.yaml_file import Document, dotted, parse_yaml, read_yaml, validate
from synthgen.types import JSONValue, digest

__all__ = ["LoadedRecipe", "apply_override", "load_recipe"]

_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
Loc = tuple[str | int, ...]
_COMMON_SOURCE_KEYS = ("license", "relation", "limit")


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """`base` is the folder relative paths in the recipe start from; `where` locates a key for messages."""

    recipe: Recipe
    document: Document
    base: Path
    text: str
    digest: str

    def where(self, *loc: str | int) -> str:
        """`file:line: key.path` of a key, for errors found after loading."""
        return f"{self.document.where(loc)}: {dotted(loc)}"


def load_recipe(
    source: Path | str | Mapping[str, JSONValue],
    overrides: Sequence[str] = (),
    *,
    base: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> LoadedRecipe:
    """Load, override, interpolate and validate a recipe.

    Raises:
        RecipeError: everything that is wrong with it, one line each.
        UsageError: an override is not of the form `a.b=c`.
    """
    if isinstance(source, Mapping):
        text = yaml.safe_dump(dict(source), sort_keys=False, allow_unicode=True)
        document, folder = parse_yaml(text, "recipe"), Path.cwd()
    else:
        path = Path(source)
        document, folder = read_yaml(path), path.parent
        text = path.read_text(encoding="utf-8")
    if not isinstance(document.value, dict):
        raise RecipeError(f"{document.path}:1: a recipe is a mapping of keys to values")
    overridden = frozenset(apply_override(document.value, override) for override in overrides)
    if overrides:
        text = yaml.safe_dump(document.value, sort_keys=False, allow_unicode=True)
    effective = digest(document.value)
    locs: set[Loc] = set()
    value = _expand(document, document.value, (), env, locs)
    expanded = replace(document, value=value, overridden=overridden, expanded=frozenset(locs))
    return LoadedRecipe(_build(expanded), expanded, base or folder, text, effective)


def apply_override(value: dict[str, JSONValue], override: str) -> tuple[str | int, ...]:
    """Set one key of `value` in place, as `a.b=c` says; returns its path.

    Raises:
        UsageError: not of that form, or the path leads through a plain value.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"--set {override}: write it as key.path=value")
    new = parse_yaml(text, f"--set {path}").value
    at: JSONValue = value
    loc: list[str | int] = []
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(at, list):
            if not key.isdigit() or int(key) >= len(at):
                raise UsageError(f"--set {override}: {key!r} is not an index of a list of {len(at)}")
            if last:
                at[int(key)] = new
            at = at[int(key)]
            loc.append(int(key))
        elif isinstance(at, dict):
            if last:
                at[key] = new
            elif not isinstance(at.get(key), dict | list):
                at[key] = {}
            at = at[key]
            loc.append(key)
        else:
            raise UsageError(f"--set {override}: {'.'.join(keys[:depth])} holds a plain value")
    return tuple(loc)


def _expand(
    document: Document, value: JSONValue, loc: Loc, env: Mapping[str, str], expanded: set[Loc]
) -> JSONValue:
    """Put environment variables in, where a recipe says how to reach something; text that may enter a prompt or a
    record is never touched. `expanded` collects where."""
    if isinstance(value, dict):
        return {key: _expand(document, item, (*loc, key), env, expanded) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(document, item, (*loc, i), env, expanded) for i, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value or not _is_address(loc):
        return value

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in env:
            raise RecipeError(f"{document.where(loc)}: environment variable {match[1]} is not set")
        return env[match[1]]

    expanded.add(loc)
    return _ENV.sub(look_up, value)


def _is_address(loc: Loc) -> bool:
    """Whether a value says where something is: a teacher's settings but its sampling, or the files of a source."""
    if loc[:1] == ("teachers",):
        return "sampling" not in loc
    return loc[:1] == ("source",) and len(loc) > 1 and loc[1] not in ("inline", "sample")


def _build(document: Document) -> Recipe:
    value = cast(dict[str, JSONValue], document.value)
    problems: list[str] = []
    prepared: dict[str, object] = dict(value)
    teachers = value.get("teachers")
    if isinstance(teachers, dict):
        found: dict[str, object] = {}
        for alias in teachers:
            try:
                found[alias] = _teacher(document, alias)
            except RecipeError as error:
                problems.append(str(error))
        prepared["teachers"] = found
    if isinstance(value.get("source"), dict):
        try:
            prepared["source"] = _source(document)
        except RecipeError as error:
            problems.append(str(error))
            prepared.pop("source")
    try:
        recipe = validate(Recipe, replace(document, value=cast(JSONValue, prepared)))
    except RecipeError as error:
        secondary = (
            ("teachers: dictionary should have", "source: is required", "teacher ") if problems else ()
        )
        problems += [line for line in str(error).splitlines() if not any(mark in line for mark in secondary)]
        raise RecipeError("\n".join(problems or [str(error)])) from error
    problems += _disagreements(document, recipe)
    if problems:
        raise RecipeError("\n".join(problems))
    return recipe


def _disagreements(document: Document, recipe: Recipe) -> Iterator[str]:
    """What no key says wrong by itself: steps of one name, teachers that are not there."""
    asked: list[tuple[tuple[str | int, ...], str]] = []
    first: dict[str, int] = {}
    for index, step in enumerate(recipe.steps):
        asked += [(("steps", index, "teacher"), alias) for alias in step.weights()]
        if step.name in ("judge", "best_of"):
            where = document.where(("steps", index, "name"))
            yield f"{where}: steps[{index}].name: {step.name!r} stands for a judge's own requests; choose another"
        if first.setdefault(step.name, index) != index:
            where = document.where(("steps", index, "name"))
            yield f"{where}: steps[{index}].name: step {first[step.name] + 1} is called {step.name!r} as well"
    judges = (("judge", recipe.refine.judge), ("best_of", recipe.refine.best_of))
    for key, config in judges:
        asked += [(("refine", key, "teacher"), alias) for alias in (config.teachers() if config else [])]
    known = list(recipe.teachers)
    for loc, alias in asked:
        if alias not in recipe.teachers:
            yield (
                f"{document.where(loc)}: {dotted(loc)}: no teacher {alias!r} under `teachers`"
                f"{suggest(alias, known)}; defined: {', '.join(known)}"
            )


def _teacher(document: Document, alias: str) -> TeacherConfig:
    given = cast(dict[str, JSONValue], cast(dict[str, JSONValue], document.value)["teachers"])[alias]
    at = ("teachers", alias)
    if not isinstance(given, dict):
        raise RecipeError(
            f"{document.where(at)}: teachers.{alias}: must be a mapping with `provider` and `model`"
        )
    provider = given.get("provider")
    if not isinstance(provider, str):
        known = ", ".join(plugin_names("provider"))
        raise RecipeError(f"{document.where(at)}: teachers.{alias}.provider: is required; known: {known}")
    try:
        model = load_plugin("provider", provider).params
    except UsageError as error:
        raise RecipeError(
            f"{document.where((*at, 'provider'))}: teachers.{alias}.provider: {error}"
        ) from error
    if "mode" in given and "mode" not in model.model_fields:
        plugins = {name: load_plugin("provider", name) for name in plugin_names("provider")}
        able = " and ".join(name for name, plugin in plugins.items() if "mode" in plugin.params.model_fields)
        raise RecipeError(
            f"{document.where((*at, 'mode'))}: teachers.{alias}.mode: {provider} has no batches ({able} have them); "
            "remove the key"
        )
    teacher = validate(model, document, at=at)
    assert isinstance(teacher, TeacherConfig)  # what the provider kind promises
    return teacher


def _source(document: Document) -> SourceConfig:
    given = dict(cast(dict[str, JSONValue], cast(dict[str, JSONValue], document.value)["source"]))
    common = {name: given.pop(name) for name in _COMMON_SOURCE_KEYS if name in given}
    where = document.where(("source",))
    if len(given) != 1:
        kinds, found = ", ".join(plugin_names("source")), ", ".join(given) or "none"
        raise RecipeError(f"{where}: source: name exactly one kind of source ({kinds}); found: {found}")
    ((kind, _),) = given.items()
    try:
        model = load_plugin("source", kind).params
    except UsageError as error:
        raise RecipeError(f"{document.where(('source', kind))}: source.{kind}: {error}") from error
    if kind in ("inline", "sample"):
        common.setdefault("license", "own")
    if "license" not in common:
        raise RecipeError(
            f"{where}: source.license: is required for files: `own`, or the SPDX id of the text"
        )
    params = _source_params(document, kind, model)
    prepared = cast(JSONValue, {"source": {"kind": kind, "params": params, **common}})
    return validate(SourceConfig, replace(document, value=prepared), at=("source",))


def _source_params(document: Document, kind: str, model: type[BaseModel]) -> BaseModel:
    given = cast(dict[str, JSONValue], cast(dict[str, JSONValue], document.value)["source"])[kind]
    if isinstance(given, dict):
        return validate(model, document, at=("source", kind))
    # The shorthand (`jsonl: rows.jsonl`) is not a mapping: wrap it, so that errors still name the line.
    return _validate_shorthand(model, document, given, ("source", kind))


def _validate_shorthand(
    model: type[BaseModel], document: Document, given: JSONValue, at: tuple[str | int, ...]
) -> BaseModel:
    """Validate a value that is not a mapping as `model`, with the same error lines as `validate`."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        text = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{document.where(at)}: {dotted(at)}: {text}") from error
