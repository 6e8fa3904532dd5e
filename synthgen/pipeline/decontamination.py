"""Decontamination of a run or a dataset: reading the reference sets, and one verdict a row that repeats an item.

In: the files a recipe or `filter --against` names; frames of the view. Out: verdicts like those of the other stages,
and what was searched for, for the manifest. Guarantees: the files are read before anything is asked or written; every
frame carries a planted item, drawn anew in every process, which must be found in spite of new line breaks and case,
or the run ends: a search that silently finds nothing looks just like a clean dataset.
Rejected: one planted item for a whole run (a search that stops working on the way would still look sound).
"""

import random
import secrets
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset import find_inputs, read_tables, tables_schema
from synthgen.errors import RecipeError, SourceError, SynthgenError, UsageError
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.verdicts import HOLDOUT
from synthgen.recipe.model import ReferenceConfig
from synthgen.refine import Reference, index_reference, repeats_of
from synthgen.refine.compared import compared_text, default_fields
from synthgen.refine.shingles import U64
from synthgen.types import JSONValue

__all__ = ["Decontamination", "open_decontamination", "references_of"]

# Columns in which benchmarks keep what is asked, in the order tried; several of them would be one item each.
_QUESTIONS = ("question", "problem", "query", "prompt", "instruction")
_PLANTED = "synthgen:self-test"
_PLANTED_WORDS = 24
_LINE_WORDS = 8


@dataclass(frozen=True, slots=True)
class _Searched:
    reference: Reference
    said: dict[str, JSONValue]


class Decontamination:
    """The reference sets of one run. `planted`: the item hidden in each of them, to be found in every frame."""

    def __init__(self, searched: Sequence[_Searched], planted: str) -> None:
        self._searched = searched
        words = planted.upper().split()
        self._copy = "\n".join(
            " ".join(words[start : start + _LINE_WORDS]) for start in range(0, len(words), _LINE_WORDS)
        )

    @classmethod
    def of_texts(cls, name: str, texts: Sequence[str], *, common: U64) -> "Decontamination":
        """Texts that are at hand; `common`: shingles that are no sign of a leak."""
        planted = _plant(secrets.SystemRandom())
        reference = index_reference(name, [*texts, planted], common=common)
        return cls([_Searched(reference, _said(reference, None, texts))], planted)

    def verdicts(self, view: pl.DataFrame) -> pl.DataFrame:
        """`id stage reason score threshold detail` of the rows that repeat an item; the first reference that has one counts.

        Raises:
            SynthgenError: the planted item was not found: nothing that was let pass can be believed.
        """
        rows = view.select("id", "prompt", "completion")
        planted = pl.DataFrame([(_PLANTED, "", self._copy)], schema=rows.schema, orient="row")
        searched = pl.concat([rows, planted])
        found: list[pl.DataFrame] = []
        for each in self._searched:
            hits = repeats_of(each.reference, searched)
            if _PLANTED not in hits["id"]:
                raise SynthgenError(
                    f"decontamination: the self-test item was not found in {each.reference.name}; no row can be "
                    "called clean, so nothing is published; please report this"
                )
            found.append(hits.filter(pl.col("id") != _PLANTED))
        return pl.concat(found).unique("id", keep="first", maintain_order=True)

    def said(self) -> list[JSONValue]:
        """What was searched for, for the manifest."""
        return [each.said for each in self._searched]


def references_of(resolved: Resolved) -> list[tuple[ReferenceConfig, Path]]:
    """The recipe's reference sets and the file of each: beside the recipe, or its copy in the run folder.

    Raises:
        RecipeError: a file is not there.
    """
    found = []
    for place, config in enumerate(resolved.loaded.recipe.refine.references()):
        try:
            found.append((config, resolved.files.find_reference(config.path)))
        except UsageError as error:
            where = resolved.loaded.where("refine", "decontaminate", place)
            raise RecipeError(f"{where}: {error}") from error
    return found


def open_decontamination(
    references: Sequence[tuple[ReferenceConfig, Path]], draw: random.Random | None = None
) -> Decontamination | None:
    """Read and index reference sets; None where there are none. `draw`: whence the planted item comes.

    Raises:
        SourceError: a file cannot be read, or holds nothing that could be searched for.
        UsageError: its columns do not say what an item is, or two sets have one name.
    """
    if not references:
        return None
    draw = draw or secrets.SystemRandom()
    planted = _plant(draw)
    searched = [_search(config, path, planted) for config, path in references]
    names = [each.reference.name for each in searched]
    if HOLDOUT in names:
        raise UsageError(
            f"decontaminate: {HOLDOUT} is what the test split of the dataset itself is called; give the reference "
            "set another `name`"
        )
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"decontaminate: two reference sets are called {name}; give one a `name` or `split`"
            )
    return Decontamination(searched, planted)


def _search(config: ReferenceConfig, path: Path, planted: str) -> _Searched:
    name = config.name or Path(config.path).name.split(".")[0]
    if config.split:
        name = f"{name}/{config.split}"
    texts = list(_texts(path, config.fields))
    # The planted item comes last and is one more: it changes neither numbers nor, but for one, counts.
    reference = index_reference(name, [*texts, planted], ngram=config.ngram)
    items = reference.items - 1
    if items == reference.unsearchable:
        raise SourceError(
            f"{path}: none of its {items} items can be searched for: all are too short or alike"
        )
    return _Searched(reference, _said(reference, config.split, texts))


def _plant(draw: random.Random) -> str:
    return " ".join(f"{draw.getrandbits(40):x}" for _ in range(_PLANTED_WORDS))


def _said(reference: Reference, split: str | None, texts: Sequence[str]) -> dict[str, JSONValue]:
    content = blake2b(digest_size=16)
    for text in texts:
        content.update(text.encode("utf-8", "replace") + b"\0")
    return {
        "name": reference.name,
        "split": split,
        "items": reference.items - 1,  # without the planted one
        "unsearchable": reference.unsearchable,
        "template_ngrams": reference.common,
        "ngram": reference.ngram,
        "digest": content.hexdigest(),
    }


def _texts(path: Path, fields: Sequence[str]) -> Iterator[str]:
    """Every line of a text file; every chosen field of every row of the rest."""
    if path.suffix in (".txt", ".text", ".md"):
        try:
            yield from (line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path}: cannot be read as text: {error}") from error
        return
    if path.suffix == ".csv":
        frame = _csv(path)
        yield from _items(path, frame.schema, fields, [frame])
        return
    files = find_inputs([path])
    schema = tables_schema(files)
    yield from _items(path, schema, fields, _whole(files, schema))


def _csv(path: Path) -> pl.DataFrame:
    try:
        return pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(f"{path}: cannot be read as CSV: {error}") from error


def _whole(files: Sequence[Path], schema: pl.Schema) -> Iterator[pl.DataFrame]:
    for table in read_tables(files, schema):
        if table.bad:
            raise SourceError(f"{table.bad[0].where}: {table.bad[0].problem}; a reference set must be whole")
        yield table.frame


def _items(
    path: Path, schema: pl.Schema, fields: Sequence[str], frames: Iterable[pl.DataFrame]
) -> Iterator[str]:
    if not schema:
        raise SourceError(f"{path}: no rows found")
    chosen = tuple(fields) or _default_fields(path, schema)
    try:
        texts = [compared_text(schema, (field,)) for field in chosen]
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    for frame in frames:
        for text in texts:
            yield from frame.select(text).to_series().to_list()


def _default_fields(path: Path, schema: pl.Schema) -> tuple[str, ...]:
    for name in _QUESTIONS:
        if name in schema:
            return (name,)
    try:
        return default_fields(schema)
    except UsageError as error:
        raise UsageError(
            f"{path}: which columns hold the items? write {{path: {path.name}, fields: [NAME]}}, in decontaminate or "
            f"behind --against; there are: {', '.join(schema)}"
        ) from error
