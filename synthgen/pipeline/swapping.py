"""`synthgen report --swaps` and `--swapped`: prompts about the other gender to ask, and what was answered to both.

In: rows with a gender near a profession; later the rows of a run over what was written for them. Out: source rows, two
a pair; the comparison. Guarantees: both halves of a pair are asked anew, so that one teacher, one day and one
sampling answered both, whatever filters chose the answer that is in the dataset; rejected answers count as answers;
what has no swap or no answer is counted with its reason.
Rejected: comparing with the stored answer (another day, chosen by filters and judges), and asking from within a
report (asking has one door, with plan, policy and budget).
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset import detect_shape, open_inputs
from synthgen.errors import SourceError, UsageError
from synthgen.insight import Answers, Pair, Swap, WordLists, compare_pairs, spoken, swap
from synthgen.insight.swaps import Gender
from synthgen.pipeline.rows import identify
from synthgen.refine.filters.phrases import RefusalParams, refusal
from synthgen.refine.verdict import view_of
from synthgen.sources.files import JSONLParams, read_jsonl
from synthgen.types import JSONValue

__all__ = ["FoundSwaps", "compare_swapped", "find_swaps"]

_SIDES: tuple[Gender, Gender] = ("female", "male")
_NEEDS = ("id", "pair", "gender", "profession")


@dataclass(frozen=True, slots=True)
class FoundSwaps:
    """`rows`: two a pair, for a recipe's source. `counts`: prompts with a profession and a gender, and what became of them."""

    rows: tuple[dict[str, JSONValue], ...]
    counts: dict[str, JSONValue]


def find_swaps(inputs: Sequence[Path], lists: WordLists, most: int) -> FoundSwaps:
    """At most `most` pairs out of all rows, equal prompts once; of more, those whose digests are smallest.

    Raises:
        SourceError: an input cannot be read.
    """
    skipped: dict[str, int] = {}
    found: dict[str, tuple[str, str, str, Swap]] = {}
    seen: set[str] = set()
    for row, turns, system, prompt in _questions(inputs, lists):
        name = blake2b(f"{system}\0{prompt}".encode(), digest_size=8).hexdigest()
        if name in seen:
            continue
        seen.add(name)
        swapped = swap(prompt, lists, system)
        if swapped is None:
            continue
        if isinstance(swapped, Swap) and turns == 1:
            found[name] = (row, system, prompt, swapped)
        else:
            reason = swapped if isinstance(swapped, str) else "several_turns"
            skipped[reason] = skipped.get(reason, 0) + 1
    languages = dict(zip(found, spoken([prompt for _, _, prompt, _ in found.values()]), strict=True))
    foreign = [name for name, language in languages.items() if language not in ("en", "unknown")]
    if foreign:
        skipped["language"] = len(foreign)
    names = sorted(set(found) - set(foreign))
    rows = [row for name in names[:most] for row in _both(name, *found[name])]
    counts: dict[str, JSONValue] = {
        "prompts": len(found) + sum(skipped.values()) - len(foreign),
        "can_be_swapped": len(names),
        "pairs": len(rows) // 2,
        "skipped": dict(sorted(skipped.items())),
    }
    return FoundSwaps(tuple(rows), counts)


def _questions(inputs: Sequence[Path], lists: WordLists) -> Iterator[tuple[str, int, str, str]]:
    """Id, number of the user's turns, system text and those turns of the rows that name a profession."""
    words = sorted({word for said in lists.professions.values() for word in said})
    named = pl.col("asked").str.to_lowercase().str.contains_any(words)
    turn = pl.element().struct
    for batch in open_inputs(inputs, detect_shape(inputs)):
        said = {
            role: pl.col("messages").list.eval(turn.field("content").filter(turn.field("role") == role))
            for role in ("user", "system")
        }
        rows = batch.frame.select(
            "id",
            turns=said["user"].list.len(),
            system=said["system"].list.join("\n\n"),
            asked=said["user"].list.join("\n\n"),
        )
        yield from rows.filter(named).iter_rows()


def _both(name: str, row: str, system: str, prompt: str, swapped: Swap) -> Iterator[dict[str, JSONValue]]:
    """The source rows of a pair, the female one first."""
    texts = {swapped.gender: (system, prompt)}
    for gender in _SIDES:
        asked = texts.get(gender, (swapped.system, swapped.prompt))
        yield {
            "id": f"{name}-{gender}",
            "pair": name,
            "gender": gender,
            "profession": swapped.profession,
            "swapped": gender not in texts,
            "of": row,
            "system": asked[0],
            "instruction": asked[1],
        }


def compare_swapped(inputs: Sequence[Path], asked: Path, lists: WordLists) -> dict[str, JSONValue]:
    """The answers in `inputs` (of a run its rejected rows too) to the pairs of the file `asked`.

    Raises:
        SourceError: a file cannot be read, or `asked` is not what `--swaps` writes.
        UsageError: no pair of it has both answers here.
    """
    places = _places(asked)
    answers: dict[tuple[str, Gender], list[tuple[str, bool]]] = {}
    for identities, text, refused in _answers(inputs):
        place = next((places[identity] for identity in identities if identity in places), None)
        if place is not None:
            answers.setdefault(place[:2], []).append((text, refused))
    professions = {pair: profession for pair, _, profession in places.values()}
    pairs = [
        Pair(pair, profession, *(_side(answers[pair, gender]) for gender in _SIDES))
        for pair, profession in sorted(professions.items())
        if all((pair, gender) in answers for gender in _SIDES)
    ]
    if not pairs:
        raise UsageError(
            f"--swapped {asked}: none of its pairs has both answers here; ask them first: a recipe with "
            f"`source: {{jsonl: {asked}, ...}}`, then report on its run"
        )
    compared = compare_pairs(pairs, lists)
    return {"asked": len(professions), "unanswered": len(professions) - len(pairs), **compared}


def _side(given: Sequence[tuple[str, bool]]) -> Answers:
    return Answers(tuple(text for text, _ in given), tuple(refused for _, refused in given))


def _places(asked: Path) -> Mapping[str, tuple[str, Gender, str]]:
    """Pair, gender and profession of each source row, by its `id` and by the id a run gives it."""
    places: dict[str, tuple[str, Gender, str]] = {}
    for row in identify(read_jsonl(JSONLParams(path=[str(asked)]), Path.cwd())):
        own, pair, gender, profession = (row.fields.get(name) for name in _NEEDS)
        side = next((side for side in _SIDES if side == gender), None)
        if (
            not (isinstance(own, str) and isinstance(pair, str) and isinstance(profession, str))
            or side is None
        ):
            why = row.problem or f"lacks {', '.join(_NEEDS)}"
            raise SourceError(f"{row.where}: not a row of what --swaps writes: {why}")
        places[own] = places[row.id] = (pair, side, profession)
    return places


def _answers(inputs: Sequence[Path]) -> Iterator[tuple[tuple[str, str], str, bool]]:
    """The names a row may have in the file of pairs, its answer, and whether that refuses."""
    turn = pl.element().struct
    said = turn.field("content").filter(turn.field("role") == "assistant")
    answer = pl.col("messages").list.eval(said).list.last().fill_null("")
    paths = [path for given in inputs for path in _with_rejects(given)]
    for batch in open_inputs(paths, detect_shape(paths)):
        rows = batch.frame.select("id", "row", "finish_reason", completion=answer)
        refused = refusal(view_of(rows), RefusalParams()).reason.is_not_null()
        for (own, row, _, text), no in zip(rows.iter_rows(), refused, strict=True):
            yield (row, own), text, no


def _with_rejects(given: Path) -> list[Path]:
    """A run's rejects are answers too, and may be all there are."""
    if not any((given / "rejected").glob("*.parquet")):
        return [given]
    return [given / kind for kind in ("data", "rejected") if any((given / kind).glob("*.parquet"))]
