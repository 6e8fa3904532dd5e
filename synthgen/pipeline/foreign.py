"""What policy says of data we did not generate: nothing, unless the user declares its use and its origin.

In: declared uses and an origin (`teacher@route`), or frames whose rows name theirs. Out: stamped frames, and card,
policy files and manifest entries of the refined dataset. Guarantee: with a declared use, no row of an origin that the
gate does not let pass is ever published, unless the output is stamped as a mere report; a declared origin never covers a
row that names another one.
"""

from collections.abc import Mapping
from dataclasses import field
from datetime import date
from pathlib import Path
from typing import get_args

import polars as pl

from synthgen.assets import package_version
from synthgen.dataclasses import dataclass
from synthgen.errors import PolicyError, UsageError
from synthgen.pipeline.checked import checked
from synthgen.pipeline.describe import Decided, Rows, about, dataset_texts, lock_text
from synthgen.pipeline.gates import OnDeny, Sorter
from synthgen.pipeline.verdicts import Counts, Objection
from synthgen.policy import (
    LOCK_NAME,
    USES,
    Ask,
    GateResult,
    Part,
    evaluate,
    gate,
    load_lock,
    load_registry,
    parse_uses,
    refusal,
    rule_folders,
)
from synthgen.recipe.model import SEED_RELATIONS, Actor
from synthgen.refine import Chain
from synthgen.types import JSONValue

__all__ = ["Declared", "ForeignPolicy"]

_ORIGIN = ("model", "route", "row_license", "seed_relation")
_RELATIONS = get_args(SEED_RELATIONS)
_DECIDED = {
    **dict.fromkeys((*_ORIGIN, "policy_id"), pl.String()),
    "generation": pl.Int32(),
    **dict.fromkeys(("outcome", "reason", "detail"), pl.String()),
}
_REFUSED = dict.fromkeys(("id", "outcome", "reason", "detail"), pl.String())


@dataclass(frozen=True, slots=True)
class Declared:
    """What the user says of foreign data, and what to do where the gate refuses."""

    use: tuple[str, ...] = ()
    origin: str | None = None
    by_column: bool = False
    row_license: str = "own"
    actor: Actor = field(default_factory=Actor)
    on_deny: OnDeny = "fail"
    group: int = 0
    enforced: bool = True


class ForeignPolicy:
    """The gate over foreign rows: decides on every origin once, when its first row comes by."""

    def __init__(self, declared: Declared, today: date) -> None:
        """Decide on the declared origin at once.

        Raises:
            PolicyError: it may not be used so.
            UsageError: a use is unknown, none or a malformed origin is declared, or lock or rule files are wrong.
        """
        self.registry = load_registry(own=rule_folders(Path.cwd()))
        self.declared = declared
        self.ask = self._question(declared, today) if declared.use else None
        self._origin: tuple[str | None, str | None] = (None, None)
        self._decided: dict[Part, Objection | None] = {}
        self._sorter = Sorter(self.registry, self.ask, declared.on_deny) if self.ask else None
        if self.ask is None:
            return
        if declared.origin is None and not declared.by_column:
            raise UsageError(
                "--use needs --origin teacher@route (or --origin-column): policy decides on who wrote the answers, "
                "and where"
            )
        if declared.origin is not None:
            teacher, at, route = declared.origin.rpartition("@")
            if not (teacher and at and route):
                raise UsageError(f"--origin {declared.origin}: write it as teacher@route")
            self._origin = (teacher, route)
            self._decide(_part(teacher, route, declared.row_license))

    def _question(self, declared: Declared, today: date) -> Ask:
        """There is no recipe that lock and rules could lie beside: those of the working folder count."""
        lock = load_lock(Path.cwd() / LOCK_NAME, today, registry=self.registry, uses=USES)
        return Ask(parse_uses(declared.use), declared.actor, today=today, overrides=lock)

    def _decide(self, part: Part) -> Objection | None:
        """What is held against rows of an origin.

        Raises:
            PolicyError: they may not be used so, and are not to be dropped.
        """
        if part not in self._decided:
            assert self.ask is not None  # only asked where a use is declared
            assert self._sorter is not None
            if not self.declared.enforced:
                self._decided[part] = None
            elif self.declared.on_deny == "fail":
                result = gate(self.registry, [*self._decided, part], self.ask)
                if not result.passed:
                    raise PolicyError(refusal(result, self.ask.uses))
                self._decided[part] = None
            else:
                self._decided[part] = self._sorted(self._sorter, part, self.ask)
        return self._decided[part]

    def _sorted(self, sorter: Sorter, part: Part, ask: Ask) -> Objection | None:
        placed = sorter.place((part,))
        if placed == self.declared.group:
            return None
        if placed is not None:
            return Objection("surplus", "other_config", f"stands in config-{placed}")
        decision = evaluate(self.registry, part, ask)
        stops = "; ".join(
            f"{c.decision} by {c.rule}" for c in decision.citations if c.decision in ("review", "deny")
        )
        reason = decision.outcome if stops else "conflict"
        return Objection("quarantined", reason, stops or "conflicts with rows before it")

    @property
    def groups(self) -> int:
        """How many groups of rows that go together there are so far."""
        return self._sorter.groups if self._sorter else 1

    @property
    def result(self) -> GateResult | None:
        """The decision on the origins that are kept; None where no use is declared."""
        if self.ask is None:
            return None
        kept = [part for part, objection in self._decided.items() if objection is None]
        return gate(self.registry, kept, self.ask)

    @property
    def outcome(self) -> str:
        """The decision, or `unevaluated`."""
        return self.result.outcome if self.result else "unevaluated"

    def stamp(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows with the declared origin where they name none of their own, and with what was decided on it.

        The second frame holds what is refused: `id`, `outcome`, `reason`, `detail`.

        Raises:
            PolicyError: a row names an origin that may not be used so, or there is none for it.
        """
        if self.ask is None:
            return frame, pl.DataFrame(schema=_REFUSED)
        teacher, route = self._origin
        named = frame.with_columns(
            pl.col("teacher").fill_null(pl.lit(teacher, dtype=pl.String)),
            pl.col("route").fill_null(pl.lit(route, dtype=pl.String)),
            pl.col("row_license").fill_null(self.declared.row_license),
        )
        model = pl.coalesce("served_model", "teacher").fill_null("unknown").alias("model")
        relation = pl.when(pl.col("seed_relation").is_in(_RELATIONS)).then("seed_relation")
        origins = named.select(
            model,
            pl.col("route").fill_null("unknown"),
            "row_license",
            relation.otherwise(pl.lit("adapted")).alias("seed_relation"),
        )
        decided = [
            (*origin, *self._told(_part(*origin), self.ask))
            for origin in origins.unique(maintain_order=True).iter_rows()
        ]
        told = pl.DataFrame(decided, schema=_DECIDED, orient="row")
        found = origins.join(told, on=_ORIGIN, how="left", maintain_order="left")
        refused = pl.DataFrame([named["id"], *(found[name] for name in _REFUSED if name != "id")])
        # What a row says of itself counts too: whoever distilled it before us may know more than its names tell.
        known = pl.max_horizontal("generation", found["generation"])
        return (
            named.with_columns(found["policy_id"], known.alias("generation"), origins["seed_relation"]),
            refused.filter(pl.col("reason").is_not_null()),
        )

    def _told(self, part: Part, ask: Ask) -> tuple[str, int, str | None, str | None, str | None]:
        objection = self._decide(part)
        decision = evaluate(self.registry, part, ask)
        known = (decision.policy_id, decision.generation)
        if objection is None:
            return *known, None, None, None
        return *known, objection.outcome, objection.reason, objection.detail

    @property
    def decided(self) -> Decided | None:
        """The decision with its question; None where no use is declared."""
        if self.ask is None or self.result is None:
            return None
        return Decided(self.registry, self.ask, self.result, self.declared.enforced)

    def manifest(
        self, name: str, chain: Chain, counts: Counts, rows: Rows, searched: list[JSONValue]
    ) -> dict[str, JSONValue]:
        """The manifest's own entries; `searched`: what decontamination looked for."""
        return {
            "name": name,
            "synthgen": package_version(),
            "policy_registry": self.registry.version,
            "policy": self.outcome,
            "policy_enforced": self.declared.enforced,
            "chain": chain.as_json(),
            "decontamination": searched,
            "counts": {"planned": counts.planned, **counts.outcomes},
            "flags": dict(sorted(counts.flags.items())),
            "checked": dict(checked(chain, counts)),
            "reasons": {"/".join(key): count for key, count in sorted(counts.reasons.items())},
            **rows.as_entries(),
        }

    def texts(self, rows: Rows, entries: Mapping[str, JSONValue]) -> dict[str, bytes]:
        """Card and policy files; `entries` are the manifest's own."""
        texts = dataset_texts(about(entries, rows, self.decided), rows, self.decided)
        return texts | lock_text(self.decided)


def _part(model: str, route: str, row_license: str, relation: SEED_RELATIONS = "adapted") -> Part:
    return Part(
        alias=model,
        provider="foreign",
        route=route,
        model=model,
        row_license=row_license,
        seed_relation=relation,
    )
