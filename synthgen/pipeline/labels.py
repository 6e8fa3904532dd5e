"""What people said of records: a JSONL file of labels, matched to a run by record id or by text.

In: lines like `{"id": "0c1f...", "label": true}` or `{"instruction": "...", "response": "...", "label": 4}`. Out: labels
that are all yes or no, or all numbers on the judges' scale. Guarantee: a file that could be read both ways is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from synthgen.dataclasses import dataclass
from synthgen.dataset.files import BadRow, read_rows
from synthgen.errors import UsageError
from synthgen.types import JSONValue, digest

__all__ = ["Labels", "read_labels"]

K = TypeVar("K")

_WORDS = {"good": True, "yes": True, "keep": True, "bad": False, "no": False, "drop": False}


@dataclass(frozen=True, slots=True)
class Labels:
    """`by_id` and `by_text` (response, or instruction and response) hold booleans, or numbers on the judges' scale."""

    by_id: Mapping[str, float]
    by_text: Mapping[tuple[str | None, str], float]
    binary: bool
    digest: str

    def __len__(self) -> int:
        return len(self.by_id) + len(self.by_text)

    def of(self, record_id: str, instruction: str, response: str) -> tuple[object, float] | None:
        """The label of a record and what it was found by, or None."""
        if record_id in self.by_id:
            return record_id, self.by_id[record_id]
        for key in ((instruction.strip(), response.strip()), (None, response.strip())):
            if key in self.by_text:
                return key, self.by_text[key]
        return None


def read_labels(path: Path, low: float, high: float) -> Labels:
    """Read a file of labels for judges that score from `low` to `high`.

    Raises:
        UsageError: a line is not a label, two lines disagree, or nobody can tell how the labels are meant.
    """
    by_id: dict[str, float] = {}
    by_text: dict[tuple[str | None, str], float] = {}
    kinds: set[str] = set()
    for where, row in read_rows(path):
        if isinstance(row, BadRow):
            raise UsageError(f"{where}: {row.problem}")
        value, kind = _label(where, row.get("label"), low, high)
        kinds.add(kind)
        text = row.get("response", row.get("text"))
        if isinstance(row.get("id"), str):
            _put(by_id, str(row["id"]), value, where)
        elif isinstance(text, str):
            asked = row.get("instruction")
            _put(by_text, (asked.strip() if isinstance(asked, str) else None, text.strip()), value, where)
        else:
            raise UsageError(f"{where}: name the record by `id`, or by `response` (with its `instruction`)")
    return Labels(by_id, by_text, _are_binary(path, kinds, low), _digest(by_id, by_text))


def _label(where: str, value: object, low: float, high: float) -> tuple[float, str]:
    if isinstance(value, bool):
        return float(value), "word"
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return float(_WORDS[value.strip().lower()]), "word"
    if isinstance(value, int | float):
        if value == 0 and low > 0:
            return 0.0, "zero"
        if value == 1:
            return 1.0, "one"
        if low <= value <= high:
            return float(value), "number"
    raise UsageError(
        f"{where}: label {value!r}: write true or false, good or bad, 1 or 0, or a score from {low:g} to {high:g}"
    )


def _are_binary(path: Path, kinds: set[str], low: float) -> bool:
    if not kinds:
        raise UsageError(f"{path}: holds no label")
    if "number" not in kinds and (kinds & {"word", "zero"} or low > 1):
        return True
    if kinds & {"word", "zero"}:
        raise UsageError(f"{path}: mixes yes-or-no labels with scores; write one or the other")
    if kinds == {"one"}:
        raise UsageError(f"{path}: every label is 1: good, or the lowest score? write true for good")
    return False


def _put(found: dict[K, float], key: K, value: float, where: str) -> None:
    if found.setdefault(key, value) != value:
        raise UsageError(f"{where}: this record has another label further up; settle it, or leave both out")


def _digest(by_id: Mapping[str, float], by_text: Mapping[tuple[str | None, str], float]) -> str:
    """Whatever the order of the lines."""
    ids: list[JSONValue] = [[key, value] for key, value in by_id.items()]
    texts: list[JSONValue] = [[asked, text, value] for (asked, text), value in by_text.items()]
    return digest(sorted(map(digest, [*ids, *texts])))
