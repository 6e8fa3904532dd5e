"""What a recipe needs its teachers to be able to do, against what the doctor proved of them.

In: a recipe, `doctor.json` of its run folder, a date. Out: an error with the recipe's line for everything that was proved
to be missing, before anything is spent. Guarantees: only a proof blocks: `unknown`, `error`, a proof older than a
week, or one of a teacher that has changed since says nothing. Sends nothing and needs no HTTP library.
Rejected: probing from `generate` (it would spend unasked, and delay every resume).
"""

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Literal

import orjson

from synthgen.asking import TeacherSpec
from synthgen.asking.doctor import Diagnosis, Finding
from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.errors import RecipeError, StorageError
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.runfolder import RunFolder
from synthgen.recipe.model import Recipe, TeacherConfig
from synthgen.types import JSONValue, digest

__all__ = [
    "BELIEVED_DAYS",
    "Need",
    "Record",
    "missing",
    "needs_of",
    "read_record",
    "require_abilities",
    "teacher_digest",
]

# Servers are restarted and upgraded; a week is how long a proof is believed.
BELIEVED_DAYS = 7
FORMAT = 1
# What changes neither what a server can do nor who it is.
_NOT_ABILITY = {
    "price",
    "limits",
    "served_as",
    "give_up_after_s",
    "timeout_s",
    "connect_timeout_s",
    "samples_per_request",
    "mode",
}


@dataclass(frozen=True, slots=True)
class Need:
    """One ability a recipe asks of one teacher; `loc` is the key that asks for it, `amount` how much of it.

    `free`: tools are called when the model sees fit, not because it must.
    """

    alias: str
    ability: Literal["structured", "tools", "logprobs", "n", "reasoning"]
    loc: tuple[str | int, ...]
    amount: int = 1
    free: bool = False


def needs_of(recipe: Recipe) -> Iterator[Need]:
    """Everything a recipe asks for that a server may lack."""
    for index, step in enumerate(recipe.steps):
        for alias in step.weights():
            if step.structured:
                yield Need(alias, "structured", ("steps", index, "structured"))
            if step.capture.reasoning:
                yield Need(alias, "reasoning", ("steps", index, "capture", "reasoning"))
            if step.capture.logprobs is not None:
                loc = ("steps", index, "capture", "logprobs")
                yield Need(alias, "logprobs", loc, step.capture.logprobs)
            if step.tools is not None:
                yield Need(alias, "tools", ("steps", index, "tools"), free=step.tool_choice in (None, "auto"))
            together = recipe.teachers[alias].samples_per_request
            if together != "auto" and min(together, step.samples) > 1:
                yield Need(alias, "n", ("teachers", alias, "samples_per_request"))
    judge = recipe.refine.judge
    if judge and judge.capture.logprobs is not None:
        for alias in judge.teachers():
            yield Need(alias, "logprobs", ("refine", "judge", "capture", "logprobs"), judge.capture.logprobs)


def missing(need: Need, diagnosis: Diagnosis) -> Finding | None:
    """The finding that proves that a need cannot be met, or None."""
    finding = diagnosis.find(need.ability)
    if finding is None:
        return None
    if finding.verdict == "yes" and isinstance(finding.value, dict):
        refused = finding.value.get("k_refused")
        too_many = isinstance(refused, int) and need.amount >= refused
        unforced = need.free and finding.value.get("auto") == "no"
        return finding if too_many or unforced else None
    return finding if finding.verdict == "no" else None


@dataclass(frozen=True, slots=True)
class Record:
    """The content of `doctor.json`: the last diagnosis of each endpoint, and what all sessions of the doctor cost."""

    diagnoses: tuple[Diagnosis, ...] = ()
    spent_usd: float = 0.0

    def updated(self, diagnoses: Iterable[Diagnosis], spent_usd: float) -> "Record":
        """With newer diagnoses in the place of earlier ones of the same endpoints."""
        latest = {(item.alias, item.endpoint): item for item in (*self.diagnoses, *diagnoses)}
        return Record(tuple(latest.values()), self.spent_usd + spent_usd)

    def write(self, folder: RunFolder) -> None:
        """Store it: temporary name, fsync, rename.

        Raises:
            StorageError: the folder cannot be written.
        """
        content = {
            "format": FORMAT,
            "spent_usd": self.spent_usd,
            "diagnoses": [item.as_json() for item in self.diagnoses],
        }
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder.path}: cannot be written: {error.strerror}") from error
        write_bytes(
            folder.doctor, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )


def read_record(folder: RunFolder) -> Record:
    """What the doctor left in a run folder; an empty record if it was never there.

    Raises:
        StorageError: `doctor.json` is not one of ours, or cannot be read.
    """
    if not folder.doctor.is_file():
        return Record()
    stored: JSONValue
    try:
        stored = orjson.loads(folder.doctor.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise StorageError(f"{folder.doctor}: cannot be read: {error}; remove it to go on without") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise StorageError(
            f"{folder.doctor}: was not written by this version of synthgen doctor; move it away"
        )
    listed, spent = stored.get("diagnoses"), stored.get("spent_usd")
    found = (
        [Diagnosis.from_json(item) for item in listed if isinstance(item, dict)]
        if isinstance(listed, list)
        else []
    )
    return Record(
        tuple(item for item in found if item is not None),
        float(spent) if isinstance(spent, int | float) else 0.0,
    )


def require_abilities(resolved: Resolved, record: Record, today: date) -> None:
    """Refuse a recipe that asks for what a server was proved to lack.

    Raises:
        RecipeError: file and line of each such key, the proof, and what can be done.
    """
    loaded = resolved.loaded
    problems = []
    for need in needs_of(loaded.recipe):
        for diagnosis in record.diagnoses:
            if not _speaks_of(diagnosis, resolved.specs[need.alias], today):
                continue
            proof = missing(need, diagnosis)
            if proof is not None:
                problems.append(
                    f"{loaded.where(*need.loc)}: teacher {need.alias!r} ({diagnosis.model} at {diagnosis.endpoint}) lacks "
                    f"this, as `synthgen doctor` proved on {diagnosis.day}: {proof.evidence}; ask another teacher or "
                    "drop the key; if the server has changed since, run doctor again"
                )
    if problems:
        raise RecipeError("\n".join(problems))


def _speaks_of(diagnosis: Diagnosis, spec: TeacherSpec, today: date) -> bool:
    """Whether a diagnosis is of this teacher as it is now, and still believed."""
    if diagnosis.alias != spec.alias:
        return False
    if diagnosis.teacher not in {teacher_digest(host.config) for host in spec.hosts}:
        return False
    try:
        age_days = (today - date.fromisoformat(diagnosis.day)).days
    except ValueError:
        return False
    return age_days <= BELIEVED_DAYS


def teacher_digest(config: TeacherConfig) -> str:
    """Digest of everything in a teacher's config that its abilities may depend on."""
    return digest(config.model_dump(mode="json", exclude=_NOT_ABILITY))
