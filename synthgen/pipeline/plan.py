"""The plan: what a recipe promises to do and to cost, before anything is sent.

In: a resolved recipe. Out: `Plan`: rows, requests, tokens, cost with an interval, policy decisions, disk. Reads the
source once (to count it and to refuse an empty one); renders prompts of the first rows only. Sends nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import cast

from synthgen.dataclasses import dataclass
from synthgen.errors import SourceError
from synthgen.pipeline.estimate import BYTES_PER_TOKEN, PILOT_ROWS, Line, estimate
from synthgen.pipeline.fields import require_fields
from synthgen.pipeline.gates import Gates
from synthgen.pipeline.judgement import JUDGING_STEPS
from synthgen.pipeline.modes import Mode, choose_modes, with_modes
from synthgen.pipeline.patience import short_timeouts
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.rows import Counter, Row, identify
from synthgen.pipeline.tree import Ask, Tree
from synthgen.policy import policy_json
from synthgen.recipe.model import PrivacyMode, SelectConfig
from synthgen.sources import BadRow, read_source
from synthgen.types import JSONValue

__all__ = ["Line", "Plan", "PrivacyPlan", "make_plan", "source_rows"]

PARQUET_BYTES_PER_TOKEN = 2.0


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """What the recipe does about private data, and in how many of the first prompts there is some, by reason code."""

    mode: PrivacyMode
    hosted: tuple[str, ...]
    looked_at: int
    found: Mapping[str, int]

    def as_json(self) -> dict[str, JSONValue]:
        """Its part of plan.json."""
        return {
            "mode": self.mode,
            "hosted": list(self.hosted),
            "looked_at": self.looked_at,
            "found": dict(self.found),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do at most; with a target it may need less. `bad_rows` will be rejects of stage `source`."""

    rows: int
    bad_rows: int
    lines: tuple[Line, ...]
    target: int | None
    budget_usd: float | None
    policy: JSONValue
    disk_bytes: int
    allowed: bool
    fans_out: bool
    modes: tuple[Mode, ...] = ()
    select: SelectConfig | None = None
    privacy: PrivacyPlan | None = None  # None: every teacher is on the user's own machines
    timeouts: tuple[str, ...] = ()  # those that may be too short for their answers
    hints: tuple[str, ...] = ()  # what may have been meant where the policy knows no such thing

    @property
    def bound(self) -> str:
        """How to read `requests`: a list that a teacher writes may lead to any number of further ones."""
        return "at least" if self.fans_out else "at most"

    @property
    def requests(self) -> int:
        """All requests, judgements included."""
        return sum(line.requests for line in self.lines)

    def usd(self) -> tuple[float, float, float] | None:
        """Low, expected and high cost, or None where a price is unknown."""
        costs = [(line.usd_low, line.usd, line.usd_high) for line in self.lines]
        if any(cost is None for line in costs for cost in line):
            return None
        known = cast(list[tuple[float, float, float]], costs)
        return (sum(c[0] for c in known), sum(c[1] for c in known), sum(c[2] for c in known))

    def as_json(self) -> dict[str, JSONValue]:
        """The content of plan.json."""
        usd = self.usd()
        return {
            "format": 1,
            "rows": self.rows,
            "bad_rows": self.bad_rows,
            "requests": self.requests,
            "lines": [cast(JSONValue, asdict(line)) for line in self.lines],
            "usd": None if usd is None else {"low": usd[0], "expected": usd[1], "high": usd[2]},
            "target": self.target,
            "select": None if self.select is None else {"n": self.select.n, "by": self.select.by},
            "budget_usd": self.budget_usd,
            "disk_bytes": self.disk_bytes,
            "policy": self.policy,
            "privacy": None if self.privacy is None else self.privacy.as_json(),
            "timeouts": list(self.timeouts),
            "modes": [cast(JSONValue, asdict(mode)) for mode in self.modes],
        }


def source_rows(resolved: Resolved, folder: Path | None = None) -> Iterator[Row]:
    """The recipe's root rows, read anew; `folder` is for temporary files."""
    return identify(read_source(resolved.loaded.recipe.source, resolved.loaded.base), folder)


def make_plan(resolved: Resolved, gates: Gates, budget_usd: float | None) -> Plan:
    """Count the source and estimate the rest.

    Raises:
        SourceError: the source cannot be read, or holds no valid row.
        RecipeError: a template needs a field that no row has.
    """
    recipe = resolved.loaded.recipe
    rows = bad = 0
    problem = None
    for row in read_source(recipe.source, resolved.loaded.base):
        rows += 1
        if isinstance(row, BadRow):
            bad += 1
            problem = problem or f"{row.where}: {row.problem}"
    if rows == bad:
        why = f"; the first problem is {problem}" if problem else ""
        where = resolved.loaded.where("source", recipe.source.kind)
        raise SourceError(f"{where}: the source holds no valid row{why}")
    pilot = list(islice((row for row in source_rows(resolved) if row.problem is None), PILOT_ROWS))
    require_fields(resolved, pilot)
    modes = choose_modes(resolved, rows - bad)
    lines = estimate(with_modes(resolved, modes), pilot, rows - bad)
    # Of what judges read nothing is stored.
    read = sum(line.input_tokens for line in lines if line.step not in JUDGING_STEPS)
    tokens = read + sum(line.output_tokens for line in lines)
    return Plan(
        rows=rows,
        bad_rows=bad,
        lines=tuple(lines),
        target=recipe.target,
        select=recipe.refine.select,
        budget_usd=budget_usd,
        policy=policy_json(gates.registry, gates.ask, gates.result),
        # The journal holds every reply as text, the shards hold it once more, compressed.
        disk_bytes=int(tokens * (BYTES_PER_TOKEN + PARQUET_BYTES_PER_TOKEN)),
        allowed=gates.result.passed,
        hints=tuple(gates.hints()),
        fans_out=any(step.prompt.reply.kind == "list" for step in resolved.tree.steps[:-1])
        or (bool(resolved.judging.aliases) and resolved.tree.steps[-1].prompt.reply.kind == "list"),
        modes=modes,
        privacy=_privacy(resolved),
        timeouts=short_timeouts(resolved),
    )


def _privacy(resolved: Resolved) -> PrivacyPlan | None:
    """What the first prompts would show if all were sent as they are."""
    tree = resolved.tree
    if not tree.privacy.hosted:
        return None
    from synthgen.refine import found_in  # brings polars along

    bare = Tree(tree.steps, tree.specs, tree.record, tree.seed)
    seen = Counter()
    looked_at = 0
    found: dict[str, int] = {}
    for row in islice(source_rows(resolved), PILOT_ROWS):
        for ask in bare.admit(row, seen)[:1]:
            if isinstance(ask, Ask):
                looked_at += 1
                texts = [message.content for message in ask.request.messages]
                for reason in set(found_in(texts).values()):
                    found[reason] = found.get(reason, 0) + 1
    return PrivacyPlan(
        tree.privacy.mode, tuple(sorted(tree.privacy.hosted)), looked_at, dict(sorted(found.items()))
    )
