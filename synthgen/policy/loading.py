"""The registry from its files, checked as a whole.

In: the packaged folder of TOML files, and folders of a user's own rules. Out: a `Registry`, read once a process.
Guarantees: unknown keys are errors, every id is unique, every reference resolves, every licence and route can be cited
for every purpose (a missing rule is found here, not at the gate). A user's folder adds: what is shipped goes on
speaking beside it, so that a user's rule can only tighten. A shipped rule that rests on text nobody here has read may
be replaced by a rule of somebody who has; any other is lifted by a waiver alone. A user's model is looked at
only where no shipped one has the name.
Rejected: one big file (a contract party changes alone and is reviewed alone); YAML (dates and comments are better
in TOML, and the standard library reads it).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

import tomli
from pydantic import Field, ValidationError

from synthgen.errors import UsageError
from synthgen.policy.model import Layer
from synthgen.policy.registry import Licence, ModelFamily, Registry, Route
from synthgen.policy.rules import Rule
from synthgen.policy.uses import MANNERS, USES
from synthgen.recipe.model import Strict

__all__ = ["RULES_DIR", "load_registry", "rule_folders"]

RULES_DIR = "policy.rules"  # a user's own rule files, beside the recipe
PACKAGED = Path(__file__).resolve().parent / "data"
M = TypeVar("M", bound=Strict)
V = TypeVar("V")


class _Seeds(Strict):
    """Other spellings of a seed licence id."""

    id: str
    aliases: tuple[str, ...] = ()


class _File(Strict):
    route: tuple[Route, ...] = ()
    licence: tuple[Licence, ...] = ()
    model: tuple[ModelFamily, ...] = ()
    seed: tuple[_Seeds, ...] = ()
    alias: Mapping[str, str] = Field(default={})
    rule: tuple[Rule, ...] = ()


class _Head(Strict):
    schema_version: Literal[1]
    released: date


def load_registry(folder: Path | None = None, own: Iterable[Path] = ()) -> Registry:
    """Read and check a registry folder (the packaged one when none is named), and folders of users' rules upon it.

    Raises:
        UsageError: a file does not parse or has an unknown key, the registry as a whole is inconsistent, or a user's
            folder reaches further than it may.
    """
    registry = _shipped(folder or PACKAGED)
    for path in own:
        registry = _with_own(registry, path)
    return registry


def rule_folders(base: Path) -> tuple[Path, ...]:
    """The folder of a user's own rules beside a recipe, if there is one."""
    folder = base / RULES_DIR
    return (folder,) if folder.is_dir() else ()


@cache
def _shipped(folder: Path) -> Registry:
    head_path = folder / "registry.toml"
    head = _parse(_Head, head_path)
    files = [_parse(_File, path) for path in sorted(folder.rglob("*.toml")) if path != head_path]
    families = [family for file in files for family in file.model]
    rules = [rule for file in files for rule in file.rule] + [family.rule() for family in families]
    registry = Registry(
        released=head.released,
        routes=_unique("route", ((route.id, route) for file in files for route in file.route)),
        licences=_unique("licence", ((item.id, item) for file in files for item in file.licence)),
        families=_unique("model", ((family.id, family) for family in families)),
        aliases=_unique("alias", (pair for file in files for pair in file.alias.items())),
        rules=_unique("rule", ((rule.id, rule) for rule in rules)),
        seed_aliases=_unique(
            "seed", ((name, seed.id) for file in files for seed in file.seed for name in _spelt(seed))
        ),
    )
    if problems := list(_problems(registry)):
        raise UsageError("\n".join(f"{folder}: {problem}" for problem in problems))
    return registry


def _spelt(seed: _Seeds) -> tuple[str, ...]:
    return tuple(name.lower() for name in (seed.id, *seed.aliases))


def _with_own(shipped: Registry, folder: Path) -> Registry:
    """The registry with a user's files upon it."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder of rule files")
    paths = sorted(folder.rglob("*.toml"))
    files = [_parse(_File, path) for path in paths]
    families = [family for file in files for family in file.model]
    rules = [rule for file in files for rule in file.rule] + [family.rule() for family in families]
    gone = set()
    for rule in rules:
        for name in rule.replaces:
            gone.add(_replaceable(shipped, folder, rule, name))
    kept = {name: rule for name, rule in shipped.rules.items() if name not in gone}
    digest = sha256(shipped.own_rules.encode() + b"".join(path.read_bytes() for path in paths)).hexdigest()
    try:
        merged = replace(
            shipped,
            routes=_more(
                "route", shipped.routes, [(r.id, _no_way_round(r)) for file in files for r in file.route]
            ),
            licences=_more("licence", shipped.licences, [(x.id, x) for file in files for x in file.licence]),
            families=_more("model", shipped.families, [(family.id, family) for family in families]),
            aliases=_more("alias", shipped.aliases, [pair for file in files for pair in file.alias.items()]),
            rules=_more("rule", kept, [(rule.id, rule) for rule in rules]),
            seed_aliases=_more(
                "seed",
                shipped.seed_aliases,
                [(n, s.id) for file in files for s in file.seed for n in _spelt(s)],
            ),
            theirs=shipped.theirs | {family.id for family in families},
            own_rules=digest,
        )
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from error
    if problems := list(_problems(merged)):
        raise UsageError("\n".join(f"{folder}: {problem}" for problem in problems))
    return merged


def _no_way_round(route: Route) -> Route:
    """A user's own route waives nothing: a proxy in front of a closed model leaves its vendor's terms in force."""
    return route.model_copy(update={"router": True}) if route.serves == "any" else route


def _replaceable(shipped: Registry, folder: Path, rule: Rule, name: str) -> str:
    """`name`, if the rule may take its place.

    Raises:
        UsageError: it rests on text that was read, or the new rule does not.
    """
    old = shipped.rules.get(name)
    if old is None:
        raise UsageError(f"{folder}: rule {rule.id}: replaces {name!r}, which is not shipped")
    if old.evidence in ("V", "Q"):
        raise UsageError(
            f"{folder}: rule {rule.id}: {name} rests on text that was read (evidence {old.evidence}); to act against "
            "it, record a [[waiver]] with the contract in policy.lock.toml"
        )
    if rule.evidence != "V" or not rule.source.url:
        raise UsageError(
            f'{folder}: rule {rule.id}: replaces {name}, so it needs evidence = "V" and the url of the text you read'
        )
    return name


def _parse(model: type[M], path: Path) -> M:
    try:
        return model.model_validate(tomli.loads(path.read_bytes().decode()))
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        ]
        raise UsageError("\n".join(lines)) from error


def _unique(what: str, pairs: Iterable[tuple[str, V]]) -> Mapping[str, V]:
    return _more(what, {}, pairs)


def _more(what: str, old: Mapping[str, V], pairs: Iterable[tuple[str, V]]) -> Mapping[str, V]:
    out = dict(old)
    for key, value in pairs:
        if key in out:
            raise UsageError(f"policy registry: {what} {key!r} is defined twice")
        out[key] = value
    return MappingProxyType(out)


def _problems(registry: Registry) -> Iterable[str]:
    """References that lead nowhere, and purposes on which a route or a licence is silent."""
    for rule in registry.rules.values():
        yield from _loose_ends(registry, rule)
    references: list[tuple[str, Callable[[ModelFamily], tuple[str, ...]], Iterable[str]]] = [
        ("licence", lambda family: family.licences, registry.licences),
        ("route", lambda family: family.routes, registry.routes),
        ("model", lambda family: family.lineage, registry.families),
    ]
    for family in registry.families.values():
        for what, named, having in references:
            for name in named(family):
                if name not in having:
                    yield f"model {family.id}: {what} {name!r} is not defined"
    layers: list[tuple[Layer, Iterable[str]]] = [("route", registry.routes), ("licence", registry.licences)]
    for layer, defined in layers:
        for name in defined:
            spoken = {use for rule in registry.speaking(layer, name) if _plain(rule) for use in rule.by_use}
            for use in sorted(set(USES) - set(MANNERS) - spoken):
                yield f"{layer} {name}: no rule speaks on {use}"


def _loose_ends(registry: Registry, rule: Rule) -> Iterable[str]:
    known: list[tuple[str, tuple[str, ...], Iterable[str]]] = [
        ("rule", rule.except_, registry.rules),
        ("route", rule.match.route, registry.routes),
        ("licence", rule.match.licence, registry.licences),
        ("model", (*rule.match.family, *rule.match.student_family), registry.families),
    ]
    for what, wanted, having in known:
        for name in wanted:
            if name not in having:
                yield f"rule {rule.id}: {what} {name!r} is not defined"
    if not rule.source.url and not rule.is_own:
        yield f"rule {rule.id}: a clause of somebody's document needs a url"


def _plain(rule: Rule) -> bool:
    """Whether the rule speaks on every part of its route or licence."""
    match = rule.match
    return not (match.model or match.family or match.student_family or match.role or match.relation)
