"""Servers that were seen to ignore a schema, remembered by the run they cost money.

In: what a session's `SchemaWatch` finds; later, a recipe and a date. Out: `schemas.json` in the run folder; later, an error
with the recipe's line, before anything is spent. Guarantees: a proof is on disk when `remember_ignored` returns, so a run
that is killed later does not buy it again; as with the doctor's proofs, one counts for the teacher as it was configured,
for the very schema, and for a week; a pool is refused once all its hosts are proved.
Rejected: `doctor.json` (its content is what the doctor found), and asking the journal (it would be read whole).
"""

from dataclasses import asdict
from datetime import date
from typing import Self, cast

import orjson

from synthgen.asking import TeacherSpec
from synthgen.asking.structured import Ignored
from synthgen.dataclasses import dataclass
from synthgen.dataset import sync_folder, write_bytes
from synthgen.errors import RecipeError, StorageError
from synthgen.pipeline.abilities import BELIEVED_DAYS, teacher_digest
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.runfolder import RunFolder
from synthgen.types import JSONValue, digest

__all__ = ["remember_ignored", "require_schemas_kept"]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Proof:
    """`teacher` is the digest of the host's config, `schema` that of the schema; `day` is an ISO date."""

    teacher: str
    schema: str
    day: str
    evidence: str

    @classmethod
    def from_json(cls, stored: JSONValue) -> Self | None:
        """The proof that was stored, None where it is not one."""
        names = cls.__slots__
        if not isinstance(stored, dict) or not all(isinstance(stored.get(name), str) for name in names):
            return None
        return cls(*(cast(str, stored[name]) for name in names))

    def is_believed(self, today: date) -> bool:
        """Whether it is young enough."""
        try:
            return (today - date.fromisoformat(self.day)).days <= BELIEVED_DAYS
        except ValueError:
            return False


def remember_ignored(folder: RunFolder, resolved: Resolved, alias: str, seen: Ignored, today: date) -> None:
    """Add to the run's proofs what was seen of the host with this alias, durably.

    Raises:
        StorageError: the folder cannot be written.
    """
    hosts = {host.alias: host for spec in resolved.specs.values() for host in spec.hosts}
    proof = _Proof(teacher_digest(hosts[alias].config), digest(seen.schema), today.isoformat(), seen.evidence)
    known = {(proof.teacher, proof.schema): proof for proof in [*_read(folder), proof]}
    content = {"format": FORMAT, "ignored": [asdict(proof) for proof in known.values()]}
    write_bytes(folder.schemas, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sync_folder(folder.path)


def require_schemas_kept(resolved: Resolved, folder: RunFolder, today: date) -> None:
    """Refuse a recipe whose teacher was seen to ignore the schema it would be sent.

    Raises:
        RecipeError: file and line of each such step, the evidence, and what can be done.
        StorageError: `schemas.json` cannot be read.
    """
    proofs = {(proof.teacher, proof.schema): proof for proof in _read(folder) if proof.is_believed(today)}
    problems = []
    for number, step in enumerate(resolved.tree.steps):
        if step.response_schema is None:
            continue
        schema = digest(step.response_schema)
        for alias, _ in step.choices:
            found = [proofs.get((one, schema)) for one in _teachers(resolved.specs[alias])]
            if (proof := found[0]) is not None and None not in found:
                problems.append(
                    f"{resolved.loaded.where('steps', number, 'structured')}: teacher {alias!r} ignored this schema on "
                    f"{proof.day}: {proof.evidence}; if the server has changed since, remove {folder.schemas}"
                )
    if problems:
        raise RecipeError("\n".join(problems))


def _teachers(spec: TeacherSpec) -> list[str]:
    return [teacher_digest(host.config) for host in spec.hosts]


def _read(folder: RunFolder) -> list[_Proof]:
    if not folder.schemas.is_file():
        return []
    stored: JSONValue
    try:
        stored = orjson.loads(folder.schemas.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise StorageError(
            f"{folder.schemas}: cannot be read: {error}; remove it to go on without"
        ) from error
    listed = stored.get("ignored") if isinstance(stored, dict) and stored.get("format") == FORMAT else None
    found = map(_Proof.from_json, listed) if isinstance(listed, list) else ()
    return [proof for proof in found if proof is not None]
