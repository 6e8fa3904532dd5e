"""How `filter` refines: what the command line says, as plain values."""

from dataclasses import field
from datetime import date
from pathlib import Path

import yaml
from pydantic import ValidationError

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.pipeline.clustering import ClusterRule
from synthgen.pipeline.gates import OnDeny
from synthgen.pipeline.judgement import JUDGE_STEP
from synthgen.recipe.model import Actor, JudgeConfig, NearConfig, ReferenceConfig, SelectConfig
from synthgen.refine.survivors import parse_keep

__all__ = ["FilterOptions", "reference_of", "rule_of"]


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """How to refine. None keeps what the run's recipe says, or the default for foreign data.

    `keep` with `score`: a comparison a stored score must satisfy (`">= 4"`). `use` with `origin`
    (`teacher@route`), or with a column that holds it, lets policy decide on foreign data; without them its output
    says `policy: unevaluated`; `actor` are facts about who will use it. `on_deny` says what becomes of rows the policy
    refuses: `fail` stops, `drop` sets them aside, `split` also writes rows that cannot stand together into folders
    of their own. `report_only` refuses nothing and stamps what it writes.
    `against`: benchmarks whose items no row may repeat, beside those of the run's recipe: files, or what a recipe says of one.
    `dedup`: who stays of similar rows (`first`, the smallest id; `longest`, `best:SCORE`, `random:SEED`), decided over all
    rows that pass; None is `first` for foreign data, and for a run its own rule, the order of its plan. `allow_collapse`:
    go on where that would remove what looks like a template.
    `dry_run`: look at the first rows only and write nothing. `select`: of what is accepted, only so many rows.
    """

    chain: str | None = None
    near: bool | None = None
    dedup: str | None = None
    allow_collapse: bool = False
    keep: str | None = None
    score: str = JUDGE_STEP
    use: tuple[str, ...] = ()
    origin: str | None = None
    origin_column: str | None = None
    row_license: str = "own"
    actor: Actor = field(default_factory=Actor)
    on_deny: OnDeny = "fail"
    report_only: bool = False
    against: tuple[Path | ReferenceConfig, ...] = ()
    rows_per_shard: int = 50_000
    test_share: float = 0.0
    dry_run: int | None = None
    select: SelectConfig | None = None
    today: date | None = None

    def day(self) -> date:
        """The day on which policy decides: the user's calendar day, as in their lock file."""
        return self.today or date.today()  # noqa: DTZ011

    def clusters(self, near: NearConfig | None) -> ClusterRule:
        """The rule of duplicates over all rows.

        Raises:
            UsageError: `dedup` is no such rule.
        """
        return ClusterRule(near, parse_keep(self.dedup or "first"), self.allow_collapse)

    @property
    def best(self) -> str:
        """The score of which the best stays; empty where none decides."""
        return parse_keep(self.dedup).score if self.dedup else ""

    def references(self) -> list[tuple[ReferenceConfig, Path]]:
        """The reference sets named beside those of a run's recipe."""
        configs = [
            one if isinstance(one, ReferenceConfig) else ReferenceConfig(path=str(one))
            for one in self.against
        ]
        return [(config, Path(config.path)) for config in configs]


def reference_of(text: str) -> ReferenceConfig:
    """What stands behind `--against`: a path, or as in a recipe `{path: bench.csv, fields: [question], ngram: 8}`.

    Raises:
        UsageError: it is neither.
    """
    if not text.lstrip().startswith("{"):
        return ReferenceConfig(path=text)
    try:
        return ReferenceConfig.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        problems = error.errors() if isinstance(error, ValidationError) else []
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)
        raise UsageError(
            f"--against {text}: {said or 'not a mapping'}; write a path, or {{path: ..., fields: [NAME], ngram: 13, "
            "name: ..., split: ...}"
        ) from error


def rule_of(keep: str) -> tuple[str, float]:
    """The comparison and number of `--keep`.

    Raises:
        UsageError: it is not a comparison with a number.
    """
    try:
        return JudgeConfig(teacher="-", keep=keep).rule()
    except ValidationError as error:
        raise UsageError(f"--keep {keep!r}: write a comparison and a number, like '>= 4'") from error
