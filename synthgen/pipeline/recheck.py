"""`policy check`: the gate's decision without a run: on a recipe, or once more on the rows a run has published.

In: a recipe, or a published folder (a run, or what `filter` made of one), maybe other uses, a day. Out: `Recheck`. For
rows, each combination of writers is decided on by itself, so that `drop` and `split` can say what they would leave.
Writes nothing, asks no teacher, opens no socket. Rejected: reading the decision in POLICY.json; it is the one of then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import cast

import orjson
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset import is_published
from synthgen.errors import UsageError
from synthgen.pipeline.gates import OnDeny, Sorter, open_gates
from synthgen.pipeline.judgement import JUDGING_STEPS
from synthgen.pipeline.resolve import resolve
from synthgen.policy import (
    LOCK_NAME,
    Ask,
    GateResult,
    Outcome,
    Part,
    Registry,
    gate,
    load_lock,
    load_registry,
    parse_uses,
    policy_json,
    rule_folders,
)
from synthgen.policy.attest import add_entry, entry_toml
from synthgen.policy.compare import read_recorded
from synthgen.policy.model import Override, rank
from synthgen.recipe.load import LoadedRecipe
from synthgen.types import JSONValue

__all__ = ["Attestation", "Recheck", "RowGroup", "attest", "check_recipe", "check_rows"]

_ROW = ("teacher", "served_model", "route", "row_license", "seed_relation")
_WRITER = ("step", "teacher", "served_model", "upstream")


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of one combination of writers and source texts. `kept_in`: number of their config, None if they must go."""

    parts: tuple[Part, ...]
    rows: int
    outcome: Outcome
    kept_in: int | None


@dataclass(frozen=True, slots=True)
class Recheck:
    """What the gate says now. `groups` is empty for a recipe, which has no rows yet."""

    registry: Registry
    ask: Ask
    result: GateResult
    on_deny: OnDeny = "fail"
    groups: tuple[RowGroup, ...] = ()

    @property
    def rows(self) -> int:
        """All rows looked at."""
        return sum(group.rows for group in self.groups)

    @property
    def rows_kept(self) -> int:
        """Rows that would stay; with `fail` all or none."""
        if self.on_deny == "fail":
            return self.rows if self.result.passed else 0
        return sum(group.rows for group in self.groups if group.kept_in is not None)

    @property
    def passed(self) -> bool:
        """Whether the use is permitted, for rows with `drop` or `split` of at least one of them."""
        return self.result.passed or (self.on_deny != "fail" and self.rows_kept > 0)

    @property
    def next_step(self) -> str:
        """What can be done, behind a refusal."""
        if self.groups and self.on_deny == "fail":
            return "; `--on-deny=drop` says how many rows would stay, `synthgen filter` with it writes them"
        return "; change teacher, route or use, or record a decision with `synthgen policy attest`"

    def as_json(self, *, enforced: bool = True) -> dict[str, JSONValue]:
        """POLICY.json of this decision, with the groups of rows beside it."""
        policy = cast(
            dict[str, JSONValue], policy_json(self.registry, self.ask, self.result, enforced=enforced)
        )
        groups: list[JSONValue] = [
            {
                "rows": group.rows,
                "decision": group.outcome,
                "config": group.kept_in,
                "writers": [f"{part.hf or part.model}@{part.route}" for part in group.parts],
                "row_license": group.parts[0].row_license,
                "seed_relation": group.parts[0].seed_relation,
            }
            for group in self.groups
        ]
        if not self.groups:
            return {**policy, "passed": self.passed}
        kept: JSONValue = {"of": self.rows, "kept": self.rows_kept, "on_deny": self.on_deny}
        return {**policy, "passed": self.passed, "rows": kept, "groups": groups}


def check_recipe(loaded: LoadedRecipe, today: date) -> Recheck:
    """Gate 1, without a run.

    Raises:
        RecipeError: recipe, rule files or lock file are wrong.
    """
    gates = open_gates(resolve(loaded), today)
    return Recheck(gates.registry, gates.ask, gates.result)


def check_rows(folder: Path, use: Sequence[str], on_deny: OnDeny, today: date | None) -> Recheck:
    """Decide anew on every row of a published folder, for other uses if some are named.

    The folder's own lock and rule files count, and the actor facts that were declared for it; without `today` the day
    it was decided for when it was published.

    Raises:
        UsageError: not published, no POLICY.json, or a use is unknown.
    """
    policy = folder / "POLICY.json"
    if not is_published(folder) or not policy.is_file():
        raise UsageError(
            f"{folder}: holds no published dataset with a POLICY.json; run `synthgen generate` to its end"
        )
    recorded = read_recorded(cast(JSONValue, orjson.loads(policy.read_bytes())), str(policy))
    uses = parse_uses(use) if use else recorded.ask.uses
    registry = load_registry(own=rule_folders(folder))
    declared = tuple(sorted({*uses, *recorded.ask.uses}))
    day = today or recorded.ask.today
    overrides = load_lock(folder / LOCK_NAME, day, registry=registry, uses=declared)
    ask = Ask(uses, recorded.ask.actor, recorded.ask.student_base, today=day, overrides=overrides)
    sorter = Sorter(registry, ask, on_deny)
    groups = []
    for parts, rows in _written_by(folder, recorded.parts, registry).items():
        outcome = gate(registry, parts, ask).outcome
        groups.append(RowGroup(parts, rows, outcome, sorter.place(parts)))
    result = gate(registry, [part for group in groups for part in group.parts], ask)
    return Recheck(registry, ask, result, on_deny, tuple(groups))


def _written_by(folder: Path, parts: Sequence[Part], registry: Registry) -> Mapping[tuple[Part, ...], int]:
    """Every combination of parts that wrote a row -> rows, most rows first."""
    shards = sorted((folder / "data").glob("*.parquet"))
    records = pl.scan_parquet(shards).select("id", *_ROW)
    lineage = sorted((folder / "lineage").glob("*.parquet"))
    if lineage:
        steps = (
            pl.scan_parquet(lineage).group_by("id").agg(pl.struct(_WRITER).unique().sort().alias("writers"))
        )
        records = records.join(steps, on="id", how="left")
    else:
        records = records.with_columns(pl.lit(None).alias("writers"))
    counted = (
        records.group_by([*_ROW, "writers"])
        .len()
        .collect()
        .sort("len", *_ROW, descending=[True] + [False] * 5)
    )
    found: dict[tuple[Part, ...], int] = {}
    for row in counted.iter_rows(named=True):
        key = _parts_of(row, parts, registry)
        found[key] = found.get(key, 0) + int(row["len"])
    return found


def _parts_of(row: Mapping[str, object], parts: Sequence[Part], registry: Registry) -> tuple[Part, ...]:
    """The recorded parts behind a row, under the conditions of the row."""
    own = {"step": "", "teacher": row["teacher"], "served_model": row["served_model"], "upstream": None}
    writers = cast(list[dict[str, str | None]], row["writers"] or [own])
    found: dict[Part, None] = {}
    for writer in writers:
        part = _recorded_part(writer, parts) or _foreign_part(writer, row)
        route = registry.route(part.route)
        host = writer["upstream"]
        upstream = (host,) if host and route and route.hands_on else part.upstream
        found[
            replace(
                part,
                upstream=upstream,
                row_license=cast(str, row["row_license"] or part.row_license),
                seed_relation=row["seed_relation"] or part.seed_relation,  # type: ignore[arg-type]  # as stored
            )
        ] = None
    # A judge that only filters is in the lineage of a row, or in nothing at all: its decision still counts.
    judges = (part for part in parts if part.role.startswith("judge-"))
    return tuple(dict.fromkeys([*found, *(judge for judge in judges if not _is_there(judge, found))]))


def _is_there(judge: Part, found: Mapping[Part, None]) -> bool:
    return any((part.alias, part.role) == (judge.alias, judge.role) for part in found)


def _recorded_part(writer: Mapping[str, str | None], parts: Sequence[Part]) -> Part | None:
    judging = writer["step"] in JUDGING_STEPS
    for part in parts:
        model = writer["served_model"] or writer["teacher"]
        named = part.alias == writer["teacher"] or (part.provider == "foreign" and part.model == model)
        if named and part.role.startswith("judge-") == judging:
            return part
    return None


def _foreign_part(writer: Mapping[str, str | None], row: Mapping[str, object]) -> Part:
    """A row that names a writer nobody declared: decided on by the names it has."""
    name = writer["served_model"] or writer["teacher"] or "unknown"
    return Part(writer["teacher"] or name, "foreign", cast(str, row["route"] or "unknown"), name)


@dataclass(frozen=True, slots=True)
class Attestation:
    """What a person decided; see `synthgen.policy.overrides`. No `rules`: all that now stop the recipe for the use."""

    use: str
    because: str
    who: str
    expires: date
    rules: tuple[str, ...] = ()
    subject: str | None = None
    contract: str | None = None
    document_sha256: str | None = None


def attest(loaded: LoadedRecipe, decided: Attestation, today: date) -> tuple[Path, str]:
    """Write the entry beside the recipe; returns the lock file and the text that was added.

    Raises:
        UsageError: nothing stops the recipe for that use.
        RecipeError: the recipe, its lock file or the entry is wrong.
    """
    (use,) = parse_uses([decided.use])
    found = check_recipe(loaded, today)
    entry = Override(
        kind="waiver" if decided.contract else "attestation",
        rules=decided.rules or _stopping(found.result, use, waiver=decided.contract is not None),
        use=use,
        justification=decided.because,
        who=decided.who,
        signed=today,
        expires=decided.expires,
        subject=decided.subject,
        contract_ref=decided.contract,
        document_sha256=decided.document_sha256,
    )
    lock = loaded.base / LOCK_NAME
    add_entry(lock, entry, registry=found.registry, uses=found.ask.uses, today=today)
    return lock, entry_toml(entry)


def _stopping(result: GateResult, use: str, *, waiver: bool) -> tuple[str, ...]:
    """Rules that an entry of that kind can lift for the use."""
    spoke = [*result.conflicts, *(c for item in result.parts for c in item.decision.citations)]
    liftable = ("review", "deny") if waiver else ("review",)
    rules = tuple(dict.fromkeys(c.rule for c in spoke if c.decision in liftable and c.use == use))
    if not rules:
        strictest = max((rank(c.decision) for c in spoke if c.use == use), default=0)
        why = (
            "is denied: that takes a contract (--contract, --document)"
            if strictest == rank("deny")
            else "is not stopped"
        )
        raise UsageError(f"attest: {use} {why}; nothing was written")
    return rules
