"""The registry: everything the gate knows, read once from dated, cited TOML files and checked as a whole.

In: the packaged folder, and folders of a user's own rules. Out: a frozen `Registry`, indexed by what rules are about.
Guarantees: unknown keys are errors, every id is unique, every reference resolves, every licence and route can be cited
for every purpose (a missing rule is found here, not at the gate). A user's folder adds: what is shipped goes on
speaking beside it, so that a user's rule can only tighten. A shipped rule that rests on text nobody here has read may
be replaced by a rule of somebody who has; any other is lifted by a waiver alone. A user's model is looked at
only where no shipped one has the name.
Rejected: one big file (a contract party changes alone and is reviewed alone); YAML (dates and comments are better
in TOML, and the standard library reads it).
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from synthgen.errors import UsageError
from synthgen.policy.model import Evidence, Layer, Outcome
from synthgen.policy.rules import Match, Rule, Source
from synthgen.policy.uses import MANNERS, USES
from synthgen.recipe.model import Strict

__all__ = [
    "RULES_DIR",
    "Licence",
    "ModelFamily",
    "Registry",
    "Route",
    "SpokenRule",
    "load_registry",
    "rule_folders",
]

RULES_DIR = "policy.rules"  # a user's own rule files, beside the recipe
SCHEMA_VERSION = 1
PACKAGED = Path(__file__).resolve().parent / "data"
M = TypeVar("M", bound=Strict)
V = TypeVar("V")


class Route(Strict):
    """A way to reach a model.

    `serves`: `own` = the party's own models, `open` = also any published weights, `any` = also closed models of
    others. At a `router` the vendor's own terms bind beside the router's. `slug` is its name behind OpenRouter.
    """

    id: str
    party: str
    serves: Literal["own", "open", "any"]
    router: bool = False
    hosts: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    slug: str = ""


class Licence(Strict):
    """One version of one licence text. `card` is the Hugging Face id; `reaches_outputs`: its duties bind what is
    made from a model's output, so the dataset names it."""

    id: str
    name: str
    url: Annotated[str, Field(pattern=r"^https://\S+$")]
    card: str = "other"
    reaches_outputs: bool = False
    notice: str = ""


class ModelFamily(Strict):
    """Models under the same licences. `names` are patterns (see `resolve`); `routes` are the vendor's own.

    `weights`: `service` is a name of the vendor's own service alone, which elsewhere may mean any version.
    `lineage` names the families these weights were tuned from: every licence of an ancestor binds too.
    `distilled` counts the rounds of training on another model's answers that are known to lie behind the weights.
    """

    id: str
    party: str
    names: Annotated[tuple[str, ...], Field(min_length=1)]
    orgs: tuple[str, ...] = ()
    weights: Literal["open", "closed", "service"] = "open"
    routes: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()
    distilled: Annotated[int, Field(ge=0)] = 0
    clause: str
    source: Source
    basis: tuple[str, ...] = ()
    as_of: date
    evidence: Evidence
    review_by: date

    @model_validator(mode="after")
    def _open_weights_have_a_licence(self) -> "ModelFamily":
        if self.weights == "open" and not self.licences and not self.lineage:
            raise ValueError("open weights need licences or lineage")
        return self

    def rule(self) -> Rule:
        """The assignment of these models to their licences, as a rule that can be cited and attested."""
        return Rule(
            id=f"model.{self.id}",
            layer="identity",
            match=Match(family=(self.id,)),
            decision={"default": "allow"},
            clause=self.clause,
            source=self.source,
            basis=self.basis,
            as_of=self.as_of,
            evidence=self.evidence,
            review_by=self.review_by,
        )


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


@dataclass(frozen=True, slots=True, eq=False)
class SpokenRule:
    """A rule with its decision for each use it speaks on."""

    rule: Rule
    by_use: Mapping[str, Outcome]


@dataclass(frozen=True, slots=True, eq=False)
class Registry:
    """Everything the gate knows.

    `aliases` maps a local model name to its `org/name`, `seed_aliases` another spelling (lower case) to a seed
    licence. `theirs` are the ids of users' own models, `own_rules` the digest of users' rule files ('' for none).
    Equal only to itself, so that decisions can be remembered by it.
    """

    released: date
    routes: Mapping[str, Route]
    licences: Mapping[str, Licence]
    families: Mapping[str, ModelFamily]
    aliases: Mapping[str, str]
    rules: Mapping[str, Rule]
    seed_aliases: Mapping[str, str] = field(default_factory=dict)
    theirs: frozenset[str] = frozenset()
    own_rules: str = ""
    _by_layer: Mapping[Layer, Mapping[str, tuple[SpokenRule, ...]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        index: dict[Layer, dict[str, list[SpokenRule]]] = {}
        for rule in self.rules.values():
            by_use = {use: outcome for use in USES if (outcome := rule.at(use)) is not None}
            spoken = SpokenRule(rule, by_use)
            for key in _index_keys(rule):
                index.setdefault(rule.layer, {}).setdefault(key, []).append(spoken)
        frozen = {layer: {key: tuple(rules) for key, rules in keys.items()} for layer, keys in index.items()}
        object.__setattr__(self, "_by_layer", frozen)

    @property
    def version(self) -> str:
        """What artefacts name: schema version, release date, and the digest of a user's own rules if there are any."""
        own = f"+{self.own_rules[:8]}" if self.own_rules else ""
        return f"{SCHEMA_VERSION}/{self.released.isoformat()}{own}"

    def route(self, name: str) -> Route | None:
        """The route of that id or alias, in any case."""
        if name in self.routes:
            return self.routes[name]
        folded = name.lower()
        return next((r for r in self.routes.values() if folded == r.id or folded in r.aliases), None)

    def upstream(self, name: str) -> Route | None:
        """The route of a host behind a router, by its slug there, its id or an alias."""
        folded = name.lower()
        return next((r for r in self.routes.values() if r.slug == folded), None) or self.route(name)

    def seed(self, name: str) -> str:
        """The seed licence a spelling means; the spelling itself where none is known."""
        return self.seed_aliases.get(name.lower(), name)

    def licences_of(self, family: ModelFamily) -> tuple[str, ...]:
        """Licence ids of the family and of every ancestor, own first, each once."""
        line = [family]
        for member in line:  # grows while it is walked
            line += [parent for name in member.lineage if (parent := self.families[name]) not in line]
        return tuple(dict.fromkeys(licence for member in line for licence in member.licences))

    def speaking(self, layer: Layer, key: str) -> Sequence[SpokenRule]:
        """Rules of a layer about a route, licence, family, seed licence or role (`*`: about any)."""
        return self._by_layer.get(layer, {}).get(key, ())


def _index_keys(rule: Rule) -> tuple[str, ...]:
    """Under what a rule of its layer is looked up."""
    match = rule.match
    by_layer: dict[Layer, tuple[str, ...]] = {
        "route": match.route or ("*",),
        "licence": match.licence,
        "student": match.licence,
        "identity": match.family,
        "seed": match.seed,
        "role": match.role,
    }
    return by_layer.get(rule.layer, ())


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
            routes=_more("route", shipped.routes, [(r.id, r) for file in files for r in file.route]),
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
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
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
            spoken = {
                use for item in registry.speaking(layer, name) if _plain(item.rule) for use in item.by_use
            }
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
