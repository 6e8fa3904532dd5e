"""What a published dataset says of itself, once more: for other uses, by today's rules, or for a student.

In: a published folder. Out: one document as bytes; nothing is written. Guarantee: the decision is made anew on every
row (`recheck`), so that no export says more than the rules allow; without other uses it is made for the day of the
publication, so that the same folder gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Literal, cast

import orjson

from synthgen.dataset import CardFile, ai_act_summary, dataset_card, read_manifest
from synthgen.dataset.croissant import croissant
from synthgen.dataset.spdx import spdx
from synthgen.errors import PolicyError
from synthgen.pipeline.describe import Decided, about, count_rows
from synthgen.pipeline.recheck import Recheck, check_rows
from synthgen.policy import check_student, obligations_md, policy_json
from synthgen.types import JSONValue

__all__ = ["Export", "export", "student_allowed"]

Export = Literal["card", "croissant", "spdx", "ai-act", "obligations", "policy"]

_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def export(
    folder: Path,
    what: Export,
    *,
    use: Sequence[str] = (),
    student: str | None = None,
    today: date | None = None,
) -> bytes:
    """One description of the dataset in `folder`; `use` takes the place of the declared uses.

    `student` names the model trained on it, which SPDX lists; its name is checked.

    Raises:
        UsageError: not a published dataset, or a use is unknown.
        PolicyError: the use is not permitted, or the student's name breaks a duty.
    """
    found = _permitted(folder, use, today)
    if student is not None:
        student_allowed(folder, student, use=found.ask.uses, today=today)
    manifest, enforced = read_manifest(folder), _enforced(folder)
    decided = Decided(found.registry, found.ask, found.result, enforced)
    if what == "policy":
        return _json(policy_json(found.registry, found.ask, found.result, enforced=enforced))
    if what == "obligations":
        return obligations_md(found.result.obligations, found.ask.uses).encode()
    info = about(manifest, count_rows(folder, _shards(manifest)), decided)
    if what == "card":
        return dataset_card(info).encode()
    documents: dict[str, JSONValue] = {
        "croissant": croissant(info),
        "spdx": spdx(info, student=student),
        "ai-act": ai_act_summary(info),
    }
    return _json(documents[what])


def student_allowed(
    folder: Path, name: str, *, use: Sequence[str] = (), distributed: bool = True, today: date | None = None
) -> tuple[str, ...]:
    """Refuse to give a student of this dataset that name; returns the obligations that then go along with it.

    For a trainer to call before it saves. `distributed`: the weights leave the organisation, so that the duties of
    `publish-weights` count as well.

    Raises:
        UsageError: not a published dataset.
        PolicyError: the rows may not be used so, or the name breaks a duty.
    """
    found = _permitted(folder, use, today)
    if distributed and "publish-weights" not in found.ask.uses:
        found = _permitted(folder, (*found.ask.uses, "publish-weights"), today)
    check_student(name, found.result.obligations)
    return tuple(map(str, found.result.obligations))


def _permitted(folder: Path, use: Sequence[str], today: date | None) -> Recheck:
    found = check_rows(folder, use, "fail", today)
    if not found.passed and _enforced(folder):
        raise PolicyError(
            f"{folder}: {found.result.outcome} for use {', '.join(found.ask.uses)}; `synthgen policy check {folder}` says why"
        )
    return found


def _enforced(folder: Path) -> bool:
    """False for what was published as a mere report; every export says so too."""
    return read_manifest(folder).get("policy_enforced") is not False


def _shards(manifest: Mapping[str, JSONValue]) -> list[CardFile]:
    files = cast(Mapping[str, Mapping[str, JSONValue]], manifest["files"])
    return [
        CardFile(path, cast(str, file["sha256"]), cast(int, file["size_bytes"]), cast(int, file["rows"]))
        for path, file in files.items()
        if "rows" in file
    ]


def _json(value: JSONValue) -> bytes:
    return orjson.dumps(value, option=_PRETTY)
