"""The doctor's story: gate, price, consent, probe, store, conclude.

    recipe -> resolve -> gate 1 -> keys -> upper bound -> budget -> consent -> every endpoint at once -> doctor.json

In: a loaded recipe (or one made up for a bare URL), and a run folder. Out: an `Examination`. Guarantees: nothing is sent
before policy, budget and consent have passed, and never more is spent than the bound that was announced; what was
proved and what it cost is stored, also when the doctor is interrupted (if it is killed, the bound counts as its cost).
`generate` counts that cost against the cap; the two never work on one run at a time.
Rejected: the run's journal for the answers (they are no part of any dataset), and asking only what the recipe needs
(a proof that costs a few cents once also says what the recipe could use).
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import field
from datetime import date
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from synthgen.asking import Budget, TeacherSpec
from synthgen.asking.connect import connect
from synthgen.asking.doctor import Diagnosis, Finding
from synthgen.asking.doctor.caller import Caller
from synthgen.asking.doctor.control import ControlPlane
from synthgen.asking.doctor.examine import examine
from synthgen.asking.doctor.questions import Bound, bound
from synthgen.asking.providers import RemoteTeacher, RemoteTeacherConfig, endpoint_of
from synthgen.asking.transport.endpoint import Endpoint
from synthgen.assets import package_version
from synthgen.dataclasses import dataclass
from synthgen.errors import BudgetReached, RecipeError, StoppedShort, SynthgenError, UsageError
from synthgen.journal import JournalIndex, lock_run, require_folder
from synthgen.pipeline.abilities import Record, read_record, require_abilities, teacher_digest
from synthgen.pipeline.gates import Gates, open_gates
from synthgen.pipeline.resolve import Resolved, resolve
from synthgen.pipeline.runfolder import RunFolder
from synthgen.policy import default_route, load_registry
from synthgen.recipe.load import LoadedRecipe
from synthgen.types import JSONValue

__all__ = ["DoctorOptions", "Examination", "diagnose", "endpoint_recipe"]


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """How to examine. `agree` is told the upper bound before anything is sent, and raises to stop; `tell` each finding.

    `store` False leaves no `doctor.json` (a bare URL belongs to no run).
    """

    max_cost_usd: float | None = None
    today: date | None = None
    store: bool = True
    agree: Callable[[Bound], None] = lambda _bound: None
    tell: Callable[[str, Finding], None] = lambda _alias, _finding: None


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found. `skipped` are teachers that have no endpoint; `problem` is what keeps a run from working."""

    diagnoses: tuple[Diagnosis, ...]
    skipped: tuple[str, ...]
    bound: Bound
    spent_usd: float | None
    problem: SynthgenError | None

    def as_json(self) -> dict[str, JSONValue]:
        """The shape `--json` prints."""
        bound = self.bound
        return {
            "version": package_version(),
            "diagnoses": [item.as_json() for item in self.diagnoses],
            "skipped": list(self.skipped),
            "bound": {
                "requests": bound.requests,
                "input_tokens": bound.input_tokens,
                "output_tokens": bound.output_tokens,
                "usd": bound.usd,
            },
            "spent_usd": self.spent_usd,
            "problem": None if self.problem is None else str(self.problem),
        }


def endpoint_recipe(
    url: str,
    model: str,
    *,
    provider: str = "openai",
    route: str | None = None,
    hf: str | None = None,
    api_key_env: str | None = None,
    use: str = "evaluate-only",
) -> dict[str, JSONValue]:
    """A recipe whose one teacher, `endpoint`, is behind a bare URL.

    `use` is what policy decides on; looking at what a server can do is `evaluate-only`.

    Raises:
        UsageError: the host is no vendor's own, and nobody says whose terms hold there; or the URL holds a user.
    """
    host = urlsplit(url).netloc.rpartition("@")
    if host[0]:
        raise UsageError(
            f"doctor: no user in the URL of {host[2]}: name the credential's variable, --api-key-env"
        )
    if route is None and default_route(load_registry(), provider, url) is None:
        raise UsageError(
            f"doctor: {host[2]}: --route is required where the host is not the vendor's own: whose terms hold there? "
            "(`self-hosted` for your own server, else the id of the host, see `synthgen list teachers`)"
        )
    optional = {"route": route, "hf": hf, "api_key_env": api_key_env}
    teacher: dict[str, JSONValue] = {
        "provider": provider,
        "base_url": url,
        "model": model,
        "sampling": {"max_tokens": 1},  # a cap wants one; each question has its own
        **{name: value for name, value in optional.items() if value is not None},
    }
    return {
        "name": "doctor",
        "use": [use],
        "source": {"inline": [{"instruction": "none"}], "relation": "none"},
        "teachers": {"endpoint": teacher},
        "steps": [{"name": "ask", "prompt": "answer", "teacher": "endpoint"}],
        "refine": {"chain": "none"},
    }


async def diagnose(loaded: LoadedRecipe, out: Path, options: DoctorOptions) -> Examination:
    """Examine every endpoint that a recipe asks.

    Raises:
        SynthgenError: it could not begin (recipe, policy, keys, budget, consent, storage, a run that is going on).
    """
    if options.store:
        require_folder(out)
    cap_usd = loaded.recipe.budget_usd if options.max_cost_usd is None else options.max_cost_usd
    resolved = resolve(loaded, cap_usd=cap_usd)
    today = options.today or date.today()  # noqa: DTZ011  # the user's calendar day, as in their lock file
    gates = open_gates(resolved, today)
    gates.require()
    if not options.store:
        return await _examine(resolved, gates, None, cap_usd, today, options)
    folder = RunFolder(out)
    folder.require_free()
    release = lock_run(folder.journal)  # a run beside us would spend against the same cap
    try:
        return await _examine(resolved, gates, folder, cap_usd, today, options)
    finally:
        release()


async def _examine(
    resolved: Resolved,
    gates: Gates,
    folder: RunFolder | None,
    cap_usd: float | None,
    today: date,
    options: DoctorOptions,
) -> Examination:
    """Examine and store in `folder`, whose lock is held."""
    earlier, spent_usd = Record(), 0.0
    if folder is not None:
        earlier = read_record(folder)
        spent_usd = _spent_by_run(folder) + earlier.spent_usd
    patients, skipped = _patients(resolved, gates, today)
    total = sum((patient.bound for patient in patients), Bound(0, 0, 0, 0.0))
    budget = Budget(total.usd, 0.0)
    try:
        _require_budget(total, cap_usd, spent_usd)
        options.agree(total)
        if folder is not None:  # if this process is killed, what it may have spent counts
            earlier.updated((), total.usd or 0.0).write(folder)
        try:
            async with asyncio.TaskGroup() as group:
                for patient in patients:
                    group.create_task(patient.examine(budget, gates, options.tell))
        finally:
            diagnoses = tuple(patient.diagnosis() for patient in patients)
            record = earlier.updated(diagnoses, budget.spent_usd)
            if folder is not None:
                record.write(folder)
    finally:
        for patient in patients:
            await patient.teacher.close()
    problem = _problem(resolved, diagnoses, record, today)
    return Examination(diagnoses, skipped, total, None if total.usd is None else budget.spent_usd, problem)


@dataclass(slots=True)
class _Patient:
    """One endpoint under examination; `alias` is that of its teacher, which may have several."""

    alias: str
    spec: TeacherSpec
    teacher: RemoteTeacher
    endpoint: Endpoint
    day: str
    findings: list[Finding] = field(default_factory=list)
    caller: Caller | None = None

    @property
    def bound(self) -> Bound:
        return bound(self.spec, self.endpoint.dialect)

    async def examine(self, budget: Budget, gates: Gates, tell: Callable[[str, Finding], None]) -> None:
        self.caller = Caller(self.spec, self.teacher, budget, dialect=self.endpoint.dialect)
        served = partial(gates.misidentified, self.alias)
        async with (
            ControlPlane(self.endpoint) as control,
            aclosing(examine(self.caller, control, served)) as found,
        ):
            async for finding in found:
                self.findings.append(finding)
                tell(self.alias, finding)

    def diagnosis(self) -> Diagnosis:
        return Diagnosis(
            alias=self.alias,
            provider=self.spec.config.provider,
            model=self.spec.config.model,
            route=self.spec.identity.route,
            endpoint=self.spec.endpoint,
            teacher=teacher_digest(self.spec.config),
            day=self.day,
            findings=tuple(self.findings),
            sent=self.caller.sent if self.caller else 0,
            cost_usd=self.caller.cost_usd if self.caller else None,
        )


def _patients(resolved: Resolved, gates: Gates, today: date) -> tuple[list[_Patient], tuple[str, ...]]:
    """Every teacher that the recipe asks (and that gate 1 has vetted), and those without an endpoint.

    Raises:
        MissingKeyError: a credential's environment variable is not set.
    """
    patients, skipped = [], []
    pinned = gates.pinned(resolved.specs)
    for alias in dict.fromkeys(part.alias for part in resolved.parts):
        for spec, asked in zip(resolved.specs[alias].hosts, pinned[alias].hosts, strict=True):
            if not isinstance(spec.config, RemoteTeacherConfig):
                skipped.append(alias)
                continue
            teacher = cast(RemoteTeacher, connect(asked))  # what a provider with such a config promises
            patients.append(_Patient(alias, spec, teacher, endpoint_of(spec.config), today.isoformat()))
    return patients, tuple(skipped)


def _spent_by_run(folder: RunFolder) -> float:
    """What the run itself has spent, and what its batches may still cost."""
    index = JournalIndex(folder.journal)
    try:
        return index.ledger.spent_usd + sum(batch.reserved_usd for batch in index.open_batches.values())
    finally:
        index.close()


def _require_budget(total: Bound, cap_usd: float | None, spent_usd: float) -> None:
    if cap_usd is None or total.usd is None or spent_usd + total.usd <= cap_usd + 1e-12:
        return
    raise BudgetReached(
        f"budget: the examination may cost up to {total.usd:.6f} USD, {max(cap_usd - spent_usd, 0):.6f} of "
        f"{cap_usd:.6f} are left; nothing was sent; raise budget_usd (or --max-cost)"
    )


def _problem(
    resolved: Resolved, diagnoses: tuple[Diagnosis, ...], record: Record, today: date
) -> SynthgenError | None:
    """An endpoint nobody can ask, else what the recipe asks for and an endpoint lacks."""
    lost = [item for item in diagnoses if not item.usable]
    if lost:
        why = [f"{item.alias} ({item.model} at {item.endpoint}): {_trouble(item)}" for item in lost]
        return StoppedShort("\n".join(["doctor: an endpoint is unusable", *why]))
    try:
        require_abilities(resolved, record, today)
    except RecipeError as error:
        return error
    return None


def _trouble(diagnosis: Diagnosis) -> str:
    trouble = diagnosis.trouble
    return f"{trouble.probe}: {trouble.evidence}" if trouble else "was not examined to the end"
