"""The two policy gates of a run.

In: a resolved recipe with its registry, `policy.lock.toml` beside the recipe, a date. Out: gate 1, which decides before
any socket is opened, and gate 2, which decides on every candidate by who really wrote it: the model that answered, the
host behind a router, the source text its words repeat. No network, no clock of its own. Guarantee: what gate 2 says
of a candidate is the gate's own decision on its parts, remembered per combination of parts.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import field, replace
from datetime import date
from typing import Literal, TypeAlias

from synthgen.asking import TeacherSpec
from synthgen.assets import suggest
from synthgen.dataclasses import dataclass
from synthgen.errors import PolicyError, RecipeError, UsageError
from synthgen.pipeline.judgement import Judgement
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.tree import Asked, Leaf
from synthgen.pipeline.verdicts import Objection, Origin
from synthgen.policy import (
    LOCK_NAME,
    Ask,
    GateResult,
    Part,
    Registry,
    evaluate,
    gate,
    load_lock,
    parse_uses,
    refusal,
    same_identity,
    vetted_hosts,
)
from synthgen.recipe.model import SEED_RELATIONS
from synthgen.types import JSONValue, digest

__all__ = ["Gates", "OnDeny", "Sorter", "open_gates"]

OnDeny = Literal["fail", "drop", "split"]
# Whose answer it was, the host behind the router that named one, and how its text relates to the source's.
_Hand: TypeAlias = tuple[str, str | None, SEED_RELATIONS]


class Sorter:
    """Rows into groups that may stand in one dataset, in the order in which the rows come.

    `drop` knows one group, `split` as many as it takes. What is refused by itself belongs nowhere.
    """

    def __init__(self, registry: Registry, ask: Ask, on_deny: OnDeny) -> None:
        self._registry, self._ask, self._on_deny = registry, ask, on_deny
        self._groups: list[tuple[Part, ...]] = []
        self._known: dict[tuple[Part, ...], int | None] = {}

    @property
    def groups(self) -> int:
        """How many there are so far."""
        return len(self._groups)

    def place(self, parts: tuple[Part, ...]) -> int | None:
        """The group of a row written by `parts`, or None."""
        if parts not in self._known:
            self._known[parts] = self._find(parts)
        return self._known[parts]

    def _find(self, parts: tuple[Part, ...]) -> int | None:
        if not gate(self._registry, parts, self._ask).passed:
            return None
        for number, members in enumerate(self._groups):
            both = tuple(dict.fromkeys((*members, *parts)))
            if gate(self._registry, both, self._ask).passed:
                self._groups[number] = both
                return number
        if self._on_deny == "split" or not self._groups:
            self._groups.append(parts)
            return len(self._groups) - 1
        return None


@dataclass(slots=True)
class Gates:
    """Both gates of one run. `result` is what gate 1 decided.

    `on_deny` other than `fail` is for rows that exist: then gate 1 stops nothing, and gate 2 sets aside what it refuses;
    of several groups of rows only `group` is written. `enforced` is false for reports: then nothing is refused, but for
    text of a model that nobody vetted.
    """

    resolved: Resolved
    registry: Registry
    ask: Ask
    result: GateResult
    on_deny: OnDeny = "fail"
    group: int = 0
    enforced: bool = True
    _same: dict[tuple[str, str | None], str | None] = field(default_factory=dict)
    _written: dict[tuple[_Hand, ...], tuple[Part, ...]] = field(default_factory=dict)
    _decided: dict[tuple[_Hand, ...], Objection | None] = field(
        default_factory=dict
    )  # of those in `_written`
    _behind_router: frozenset[str] = field(init=False)
    _sorter: Sorter | None = None

    def __post_init__(self) -> None:
        teachers = (part for part in self.resolved.parts if part.role == "teacher")
        self._behind_router = frozenset(part.alias for part in teachers if self._at_router(part))

    def require(self) -> None:
        """Gate 1.

        Raises:
            PolicyError: review or deny, with rule, source and date of what stands in the way.
        """
        if not self.enforced or self.on_deny != "fail":
            return
        if not self.result.passed:
            raise PolicyError("\n".join([refusal(self.result, self.ask.uses), *self.hints()]))
        for alias, hosts in self.pins.items():
            if not hosts:
                raise PolicyError(
                    f"policy: {alias}: no host behind the router is vetted for this model and use; nothing was sent\n"
                    "  next: name one that is in `synthgen policy list routes` with `upstream`, or use a route of its own"
                )

    def hints(self) -> list[str]:
        """For each route the registry does not know but nearly does, which one may be meant."""
        known = [name for route in self.registry.routes.values() for name in (route.id, *route.aliases)]
        return [
            f"  {self.resolved.loaded.where('teachers', alias, 'route')}: unknown route {route!r}{near}"
            for alias, route in ((alias, spec.identity.route) for alias, spec in self.resolved.specs.items())
            if route not in known and (near := suggest(route, known))
        ]

    @property
    def pins(self) -> dict[str, tuple[str, ...]]:
        """Teacher behind a router -> the hosts a request may be handed to: the recipe's, else all that are vetted."""
        routers = {part.alias: part for part in self.resolved.parts if self._at_router(part)}
        return {
            alias: part.upstream or vetted_hosts(self.registry, part, self.ask)
            for alias, part in routers.items()
        }

    def pinned(self, specs: Mapping[str, TeacherSpec]) -> dict[str, TeacherSpec]:
        """The teachers with their hosts named, so that a router hands no request to one that nobody vetted."""
        pins = self.pins
        return {alias: _pinned(spec, pins[alias]) if alias in pins else spec for alias, spec in specs.items()}

    def _at_router(self, part: Part) -> bool:
        route = self.registry.route(part.route)
        return route is not None and route.hands_on

    @property
    def groups(self) -> int:
        """How many groups of rows that go together gate 2 has seen."""
        return self._sorter.groups if self._sorter else 1

    def published(self, policy_ids: Container[str]) -> GateResult:
        """The decision on what is published: the declared parts, and those behind the rows with these ids.

        With `on_deny`, on what was kept. What gate 2 let pass and no row holds, such as answers beyond the target, counts
        for nothing: how much of that there is depends on the size of a wave.
        """
        seen = dict.fromkeys(map(self._written.__getitem__, self._decided))
        written = {part for parts in seen if self._row_id(parts) in policy_ids for part in parts}
        teachers = [part for part in self.resolved.parts if part.role == "teacher"]
        if self.on_deny != "fail":  # what refused rows alone hold is not published
            teachers = [part for part in teachers if part in written]
        others = [part for part in self.resolved.parts if part.role != "teacher"]
        return gate(
            self.registry, [*teachers, *others, *sorted(written.difference(teachers), key=repr)], self.ask
        )

    def objection(self, leaf: Leaf) -> Objection | None:
        """Gate 2: why a leaf's text may not be published, or None."""
        for asked in leaf.asked:
            completion = asked.reply.completion
            problem = self.misidentified(asked.ask.alias, completion.served_model if completion else None)
            if problem is not None:
                return Objection("quarantined", "served_identity", problem)
        hands = self._hands(leaf)
        if hands not in self._decided:
            parts = self._parts(hands)
            self._decided[hands] = self._refused(parts) if parts and self.enforced else None
        return self._decided[hands]

    def _refused(self, parts: tuple[Part, ...]) -> Objection | None:
        if self.on_deny != "fail":
            return self._unplaced(parts)
        # Gate 1 has passed the declared parts: only what differs from them can be refused here.
        found = tuple(part for part in parts if part not in self.resolved.parts)
        if not found or gate(self.registry, found, self.ask).passed:
            return None
        echoed = found[0].seed_relation != self.resolved.loaded.recipe.source.relation
        return Objection("quarantined", "seed_overlap" if echoed else "served_host", self._stops(found))

    def _unplaced(self, parts: tuple[Part, ...]) -> Objection | None:
        """Rows that exist: what is refused is set aside, what belongs to another group waits for its turn."""
        if self._sorter is None:
            self._sorter = Sorter(self.registry, self.ask, self.on_deny)
        row = (*parts, *(part for part in self.resolved.parts if part.role != "teacher"))
        placed = self._sorter.place(row)
        if placed == self.group:
            return None
        if placed is not None:
            return Objection("surplus", "other_config", f"stands in config-{placed}")
        outcome = gate(self.registry, row, self.ask).outcome
        alone = outcome in ("review", "deny")
        return Objection("quarantined", outcome if alone else "conflict", self._stops(row))

    def _stops(self, parts: tuple[Part, ...]) -> str:
        """The rules that stand in the way."""
        result = gate(self.registry, parts, self.ask)
        spoke = [*result.conflicts, *(c for item in result.parts for c in item.decision.citations)]
        stops = [
            f"{c.decision} by {c.rule} on {c.subject}" for c in spoke if c.decision in ("review", "deny")
        ]
        return "; ".join(dict.fromkeys(stops)) or "conflicts with rows before it"

    def _hands(self, leaf: Leaf) -> tuple[_Hand, ...]:
        """Who wrote a leaf's text, as it turned out."""
        relation = self._relation(leaf)
        return tuple([(asked.ask.alias, self._host(asked), relation) for asked in leaf.asked])

    def _parts(self, hands: tuple[_Hand, ...]) -> tuple[Part, ...]:
        """The same for the policy."""
        parts = self._written.get(hands)
        if parts is None:
            parts = self._written[hands] = tuple(dict.fromkeys(map(self._part, hands)))
        return parts

    def _part(self, hand: _Hand) -> Part:
        alias, host, relation = hand
        declared = next(
            part for part in self.resolved.parts if part.role == "teacher" and part.alias == alias
        )
        upstream = (host,) if host else declared.upstream
        return replace(declared, upstream=upstream, seed_relation=relation)

    def _host(self, asked: Asked) -> str | None:
        """The host a router names; what else a reply says of hosts is nothing to us."""
        if asked.ask.alias not in self._behind_router or asked.reply.completion is None:
            return None
        return asked.reply.completion.upstream

    def _relation(self, leaf: Leaf) -> SEED_RELATIONS:
        """The declared relation; `inspired` only if no message repeats the source."""
        declared = self.resolved.loaded.recipe.source.relation
        if declared != "inspired" or not leaf.messages:
            return declared
        texts = [text for message in leaf.messages for text in (message.content, message.reasoning) if text]
        from synthgen.refine import repeats  # data frames: only where this is declared

        source = "\n\n".join(_texts(dict(leaf.row.fields)))
        return "adapted" if repeats("\n\n".join(texts), source) else declared

    def misjudged(self, judgement: Judgement) -> str | None:
        """Gate 2 for a judgement: why it may not decide about a record, or None."""
        if judgement.reply.completion is None:
            return None
        return self.misidentified(judgement.alias, judgement.served_model)

    def misidentified(self, alias: str, served: str | None) -> str | None:
        """Why what was served under this name is not the teacher that was vetted, or None."""
        asked = alias, served
        if asked not in self._same:
            config = self.resolved.specs[alias].config
            hf = config.hf.partition("@")[0] if config.hf else None
            same = served in (hf, config.model) or same_identity(
                self.registry, config.maker_model, served, tuple(config.served_as)
            )
            self._same[asked] = None if same else f"{alias} asked for {config.model}, {served} answered"
        return self._same[asked]

    def origin(self, leaf: Leaf) -> Origin:
        """What the record says of where its text comes from."""
        source = self.resolved.loaded.recipe.source
        if not leaf.asked:
            return Origin("", source.license, source.relation, "", None)
        parts = self._parts(self._hands(leaf))
        decisions = [evaluate(self.registry, part, self.ask) for part in parts]
        return Origin(
            self.resolved.specs[leaf.asked[-1].ask.alias].identity.route,
            source.license,
            parts[0].seed_relation,
            self._row_id(parts),
            max(_behind(leaf, parts[0]) + 1, *(decision.generation for decision in decisions)),
        )

    def _row_id(self, parts: tuple[Part, ...]) -> str:
        """`policy_id` of a row; with several teachers the digest of their part ids, sorted."""
        ids = sorted({evaluate(self.registry, part, self.ask).policy_id for part in parts})
        return ids[0] if len(ids) == 1 else digest(list(ids))


def _behind(leaf: Leaf, part: Part) -> int:
    """The generation a source row says it has, as rows that synthgen published do; 0 where its text does not enter."""
    said = leaf.row.fields.get("generation")
    entered = part.seed_relation in ("verbatim", "adapted")
    return said if entered and isinstance(said, int) and 0 <= said < 1000 else 0


def _pinned(spec: TeacherSpec, hosts: tuple[str, ...]) -> TeacherSpec:
    config = spec.config.model_copy(update={"upstream": list(hosts)})
    return replace(spec, config=config, pool=tuple(_pinned(member, hosts) for member in spec.pool))


def _texts(value: JSONValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def open_gates(
    resolved: Resolved,
    today: date,
    *,
    on_deny: OnDeny = "fail",
    group: int = 0,
    enforced: bool = True,
    declared: Sequence[str] = (),
) -> Gates:
    """Load overrides, decide every part. `declared` are further uses that the lock file may speak of.

    Raises:
        RecipeError: a declared use is unknown, or the lock file is wrong.
    """
    recipe = resolved.loaded.recipe
    try:
        uses = parse_uses(tuple(recipe.use))
    except UsageError as error:
        raise RecipeError(f"{resolved.loaded.where('use')}: {error}") from error
    lock = resolved.loaded.base / LOCK_NAME
    overrides = load_lock(lock, today, registry=resolved.registry, uses=(*uses, *declared))
    ask = Ask(uses, recipe.actor, recipe.student_base, today=today, overrides=overrides)
    result = gate(resolved.registry, resolved.parts, ask)
    return Gates(resolved, resolved.registry, ask, result, on_deny, group, enforced)
