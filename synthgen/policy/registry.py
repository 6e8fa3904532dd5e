"""The registry: everything the gate knows, indexed by what rules are about.

In: routes, licences, model families and rules (`loading` reads them from files). Out: a frozen `Registry`. Guarantees: a
rule is found by its route, licence, family, seed licence or role; a family inherits the licences of every ancestor;
names are matched in any case, shipped ones before a user's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from synthgen.dataclasses import dataclass
from synthgen.policy.model import Evidence, Layer
from synthgen.policy.rules import Match, Rule, Source
from synthgen.recipe.model import Strict

__all__ = ["Licence", "ModelFamily", "Registry", "Route"]

SCHEMA_VERSION = 1


class Route(Strict):
    """A way to reach a model.

    `serves`: `own` = the party's own models, `open` = also any published weights, `any` = also closed models of
    others. At a `router` the vendor's own terms bind beside the router's. One that `hands_on` requests does so to hosts
    that go by their `slug`.
    """

    id: str
    party: str
    serves: Literal["own", "open", "any"]
    router: bool = False
    hands_on: bool = False
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
    _by_layer: Mapping[Layer, Mapping[str, tuple[Rule, ...]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        index: dict[Layer, dict[str, list[Rule]]] = {}
        for rule in self.rules.values():
            for key in _index_keys(rule):
                index.setdefault(rule.layer, {}).setdefault(key, []).append(rule)
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

    def speaking(self, layer: Layer, key: str) -> Sequence[Rule]:
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
