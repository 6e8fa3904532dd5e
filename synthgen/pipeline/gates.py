"""The two policy gates of a run.

In: a resolved recipe, the packaged registry, `policy.lock.toml` beside the recipe, a date. Out: gate 1, which decides
before any socket is opened, and gate 2, which compares the identity every reply was served under with the one that
was vetted. No network, no clock of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from synthgen.asking import maker_model
from synthgen.assets import suggest
from synthgen.errors import PolicyError, RecipeError, UsageError
from synthgen.journal import Reply
from synthgen.pipeline.records import Origin
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.tree import Leaf
from synthgen.policy import (
    Ask,
    Decision,
    GateResult,
    Registry,
    gate,
    load_lock,
    load_registry,
    parse_uses,
    refusal,
    same_identity,
)
from synthgen.types import digest

__all__ = ["Gates", "open_gates"]


@dataclass(slots=True)
class Gates:
    """Both gates of one run. `result` is what gate 1 decided."""

    resolved: Resolved
    registry: Registry
    ask: Ask
    result: GateResult
    _same: dict[tuple[str, str | None], str | None] = field(default_factory=dict)

    def require(self) -> None:
        """Gate 1.

        Raises:
            PolicyError: review or deny, with rule, source and date of what stands in the way.
        """
        if not self.result.passed:
            raise PolicyError("\n".join([refusal(self.result, self.ask.uses), *self.hints()]))

    def hints(self) -> list[str]:
        """For each route the registry does not know but nearly does, which one may be meant."""
        known = [name for route in self.registry.routes.values() for name in (route.id, *route.aliases)]
        return [
            f"  {self.resolved.loaded.where('teachers', alias, 'route')}: unknown route {route!r}{near}"
            for alias, route in ((alias, spec.identity.route) for alias, spec in self.resolved.specs.items())
            if route not in known and (near := suggest(route, known))
        ]

    def decision(self, alias: str) -> Decision:
        """Gate 1's decision for a teacher of a step."""
        return next(
            item.decision
            for item in self.result.parts
            if item.part.alias == alias and item.part.role == "teacher"
        )

    def mismatch(self, leaf: Leaf) -> str | None:
        """Gate 2: why a leaf's text may not be published, or None."""
        for asked in leaf.asked:
            completion = asked.reply.completion
            problem = self.misidentified(asked.ask.alias, completion.served_model if completion else None)
            if problem is not None:
                return problem
        return None

    def misjudged(self, judgement: Reply) -> str | None:
        """Gate 2 for a judgement: why it may not decide about a record, or None."""
        judge, completion = self.resolved.judge, judgement.completion
        if judge is None or completion is None:
            return None
        return self.misidentified(judge.spec.alias, completion.served_model)

    def misidentified(self, alias: str, served: str | None) -> str | None:
        """Why what was served under this name is not the teacher that was vetted, or None."""
        if (alias, served) not in self._same:
            config = self.resolved.specs[alias].config
            hf = config.hf.partition("@")[0] if config.hf else None
            same = served in (hf, config.model) or same_identity(
                self.registry, maker_model(config), served, tuple(config.served_as)
            )
            self._same[alias, served] = (
                None if same else f"{alias} asked for {config.model}, {served} answered"
            )
        return self._same[alias, served]

    def origin(self, leaf: Leaf) -> Origin:
        """What the record says of where its text comes from."""
        source = self.resolved.loaded.recipe.source
        if not leaf.asked:
            return Origin("", source.license, source.relation, "")
        aliases = dict.fromkeys(asked.ask.alias for asked in leaf.asked)
        return Origin(
            self.resolved.specs[leaf.asked[-1].ask.alias].identity.route,
            source.license,
            source.relation,
            self._joined([self.decision(alias).policy_id for alias in aliases]),
        )

    @staticmethod
    def _joined(policy_ids: Sequence[str]) -> str:
        """A row written by several teachers carries the digest of their part ids, sorted."""
        return policy_ids[0] if len(set(policy_ids)) == 1 else digest(sorted(set(policy_ids)))


def open_gates(resolved: Resolved, today: date) -> Gates:
    """Load rules and overrides, decide every part.

    Raises:
        RecipeError: a declared use is unknown, or the lock file is wrong.
    """
    registry = load_registry()
    recipe = resolved.loaded.recipe
    try:
        uses = parse_uses(tuple(recipe.use))
    except UsageError as error:
        raise RecipeError(f"{resolved.loaded.where('use')}: {error}") from error
    lock = resolved.loaded.base / "policy.lock.toml"
    overrides = load_lock(lock, today, registry=registry, uses=uses)
    ask = Ask(uses, recipe.actor, recipe.student_base, today=today, overrides=overrides)
    return Gates(resolved, registry, ask, gate(registry, resolved.parts, ask))
