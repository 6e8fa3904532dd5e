"""`synthgen report`: reading a run or anybody's dataset, and the requests it is compared with.

In: a run or dataset folder, or files; logs of requests. Out: one JSON value, written whole, and seed rows. Guarantees:
asks nobody; changes no row; memory holds at most `ROWS` rows' texts of each side, spread evenly over the set, and the
report says how many were read. Requests with credentials or personal data become no seeds, and are counted.
Rejected: a part of `generate` (a report over rows that are still being bought would be of another set than the one
that is published).
"""

import math
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import orjson
import polars as pl

from synthgen.assets import package_version
from synthgen.dataclasses import dataclass
from synthgen.dataset import find_inputs, is_published, read_manifest, read_tables, tables_schema, write_bytes
from synthgen.errors import SourceError, UsageError
from synthgen.insight import (
    Seed,
    cells,
    count_words,
    cover,
    diversity,
    drop_table,
    gender_bias,
    languages,
    pick,
    read_word_lists,
    spoken,
    wilson,
)
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.swapping import compare_swapped, find_swaps
from synthgen.refine.compared import compared_text, default_fields
from synthgen.refine.filters.private import PiiParams, SecretsParams, pii, secrets
from synthgen.refine.verdict import view_of
from synthgen.sources import SourceRow
from synthgen.sources.requests import RequestsParams, read_requests
from synthgen.sources.sample import FromFile, SampleParams
from synthgen.types import JSONValue

__all__ = ["DatasetReport", "ReportOptions", "report_on"]

ROWS = 20_000
FORMAT = 1
_MATCHES = 20
_MATCH = r"^item (\d+), (\w+), (\d+) words: (.*)$"
_USERS = ("user", "human")


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What to report on beside the rows themselves.

    `against`: logs of real requests; `column` of them where they are plain text under a name of its own. `by`: fields
    of the rows whose combinations should all occur, beside the attributes of a `sample` source. `seeds`: how many
    requests at most become seed rows. `words`: word lists for the bias report, in place of the packaged English ones.
    `swaps`: how many pairs of prompts about a woman and about a man to make, at most. `swapped`: such pairs, written
    before, to which the rows are the answers.
    """

    against: tuple[Path, ...] = ()
    column: str | None = None
    by: tuple[str, ...] = ()
    seeds: int = 100
    words: Path | None = None
    swaps: int = 0
    swapped: Path | None = None


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """`content` is what `report.json` holds; `seeds` and `swaps` are rows a recipe's source can read."""

    content: dict[str, JSONValue]
    seeds: tuple[dict[str, JSONValue], ...]
    swaps: tuple[dict[str, JSONValue], ...] = ()

    def write(self, path: Path) -> None:
        """Write `report.json`, whole or not at all.

        Raises:
            StorageError: the disk refuses.
        """
        write_bytes(path, orjson.dumps(self.content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def write_seeds(self, path: Path) -> None:
        """Write the seeds as JSONL.

        Raises:
            StorageError: the disk refuses.
        """
        _write_rows(path, self.seeds)

    def write_swaps(self, path: Path) -> None:
        """Write the prompts about both genders as JSONL.

        Raises:
            StorageError: the disk refuses.
        """
        _write_rows(path, self.swaps)


def _write_rows(path: Path, rows: Sequence[dict[str, JSONValue]]) -> None:
    write_bytes(path, b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))


def report_on(inputs: Sequence[Path], options: ReportOptions) -> DatasetReport:
    """Coverage, diversity, losses and bias of the accepted rows of `inputs`.

    Raises:
        SynthgenError: an input or a log cannot be read, or an option does not fit them.
    """
    lists = read_word_lists(options.words)
    requests = [row for path in options.against for row in _requests(path, options.column)]
    if options.against and not requests:
        raise SourceError(f"{', '.join(map(str, options.against))}: no request in it")
    rows, total = _texts(inputs)
    folder = inputs[0] if len(inputs) == 1 and inputs[0].is_dir() else None
    prompts, answers = count_words(rows["prompt"].to_list()), count_words(rows["completion"].to_list())
    asked_in, answered_in = spoken(prompts.texts), spoken(answers.texts)
    content: dict[str, JSONValue] = {
        "format": FORMAT,
        "synthgen": package_version(),
        "inputs": [path.as_posix() for path in inputs],
        "manifest_sha256": _manifest_digest(folder),
        "rows": total,
        "rows_read": rows.height,
        "diversity": {"prompts": diversity(prompts), "answers": diversity(answers)},
        "languages": {"prompts": {**languages(asked_in)}, "answers": {**languages(answered_in)}},
        "bias": gender_bias(prompts, answers, lists),
        **(_of_folder(folder, options.by) if folder is not None else {}),
    }
    if options.by and "attributes" not in content:
        raise UsageError("--by: looks into a run's or dataset's folder; name that, not single files")
    swaps = None
    if options.swaps:
        swaps = find_swaps(inputs, lists, options.swaps)
        content["swaps"] = swaps.counts
    if options.swapped is not None:
        content["counterfactual"] = compare_swapped(inputs, options.swapped, lists)
    swap_rows = swaps.rows if swaps else ()
    if not requests:
        return DatasetReport(content, (), swap_rows)
    asked = pick(pl.Series([str(row.fields["instruction"]) for row in requests], dtype=pl.String), ROWS)
    places = [n * len(requests) // len(asked) for n in range(len(asked))]
    covered = cover(prompts, asked, seeds=options.seeds, our_language=asked_in)
    seeds = [_seed_row(requests[places[seed.place]], seed) for seed in covered.seeds]
    open_ones = _without_private(seeds)
    withheld = len(seeds) - len(open_ones)
    content["coverage"] = {
        **covered.report,
        "requests_read_from": len(requests),
        "seeds": {"rows": len(open_ones), "withheld_private": withheld},
    }
    return DatasetReport(content, tuple(open_ones), swap_rows)


def _requests(path: Path, column: str | None) -> Iterator[SourceRow]:
    for row in read_requests(RequestsParams(path=[str(path)], column=column), Path.cwd()):
        if isinstance(row, SourceRow):
            yield row


def _seed_row(row: SourceRow, seed: Seed) -> dict[str, JSONValue]:
    return {
        "instruction": row.fields["instruction"],
        "why": seed.why,
        "topic": seed.topic,
        "covered": round(seed.covered, 3),
        "from": row.where,
    }


def _without_private(seeds: list[dict[str, JSONValue]]) -> list[dict[str, JSONValue]]:
    texts = pl.Series([str(seed["instruction"]) for seed in seeds], dtype=pl.String)
    view = view_of(pl.DataFrame({"id": [str(n) for n in range(len(seeds))], "completion": texts}))
    found = (pii(view, PiiParams()).reason, secrets(view, SecretsParams()).reason)
    clean = found[0].is_null() & found[1].is_null()
    return [seed for seed, kept in zip(seeds, clean.to_list(), strict=True) if kept]


def _texts(inputs: Sequence[Path]) -> tuple[pl.DataFrame, int]:
    """`prompt` and `completion` of at most `ROWS` rows, and how many there are."""
    files = find_inputs(inputs)
    schema = tables_schema(files)
    if not schema:
        raise SourceError(f"{', '.join(map(str, inputs))}: no rows found")
    asked, answered = _sides(schema)
    names = sorted({*asked.meta.root_names(), *answered.meta.root_names()})
    total = sum(table.frame.height for table in read_tables(files, schema, columns=names[:1]))
    if total == 0:
        raise SourceError(f"{', '.join(map(str, inputs))}: no rows found")
    step = max(math.ceil(total / ROWS), 1)
    parts, before = [], 0
    for table in read_tables(files, schema, columns=names):
        height = table.frame.height
        kept = table.frame.slice(-before % step).gather_every(step)
        parts.append(
            kept.select(asked.fill_null("").alias("prompt"), answered.fill_null("").alias("completion"))
        )
        before += height
    return pl.concat(parts), total


def _sides(schema: pl.Schema) -> tuple[pl.Expr, pl.Expr]:
    """What is asked, without system texts, and what is answered."""
    turns = next((name for name in ("messages", "conversations") if name in schema), None)
    if turns is not None:
        dtype = schema[turns]
        inner = dtype.inner if isinstance(dtype, pl.List) else None
        fields = [field.name for field in inner.fields] if isinstance(inner, pl.Struct) else []
        role, said = ("role", "content") if "role" in fields else ("from", "value")
        if role in fields and said in fields:
            one = pl.element().struct
            users = one.field(said).filter(one.field(role).is_in(_USERS))
            return pl.col(turns).list.eval(users).list.join("\n\n"), compared_text(schema, ("completion",))
    if {"prompt", "completion"} <= set(schema):
        return compared_text(schema, ("prompt",)), compared_text(schema, ("completion",))
    if {"instruction", "output"} <= set(schema):
        asked = [name for name in ("instruction", "input") if name in schema]
        return compared_text(schema, asked), compared_text(schema, ("output",))
    known = (
        "a report knows messages, conversations, prompt/completion, instruction/output and text; there are"
    )
    return compared_text(schema, default_fields(schema, known)), pl.lit("")


def _manifest_digest(folder: Path | None) -> str | None:
    if folder is None or not is_published(folder):
        return None
    return sha256((folder / "manifest.json").read_bytes()).hexdigest()


def _of_folder(folder: Path, by: Sequence[str]) -> dict[str, JSONValue]:
    """What only a folder tells: losses, benchmark items that were found, combinations of attributes."""
    rejected = _shards(folder, "rejected", ("id", "teacher", "stage", "reason", "detail"))
    candidates = pl.concat(
        [
            _shards(folder, "data", ("id", "teacher", "stage", "reason", "detail")),
            rejected,
            _shards(folder, "quarantine", ("id", "teacher", "stage", "reason", "detail")),
        ]
    )
    out: dict[str, JSONValue] = {}
    if rejected.height:
        out["losses"] = drop_table(candidates)
    manifest = read_manifest(folder) if is_published(folder) else {}
    searched = manifest.get("decontamination")
    if isinstance(searched, list) and searched:
        out["decontamination"] = [_leaked(entry, rejected, candidates.height) for entry in searched]
    attributes = {**_planned(folder), **{name: [] for name in by}}
    if attributes:
        out["attributes"] = cells(_with_attributes(folder, candidates, list(attributes)), attributes)
    return out


def _shards(folder: Path, kind: str, columns: Sequence[str]) -> pl.DataFrame:
    files = sorted((folder / kind).glob("*.parquet"))
    schema = {name: pl.String() for name in columns}
    if not files:
        return pl.DataFrame(schema=schema)
    scan = pl.scan_parquet(files, glob=False, missing_columns="insert", extra_columns="ignore")
    there = scan.collect_schema().names()
    wanted = [
        pl.col(name).cast(pl.String) if name in there else pl.lit(None, pl.String).alias(name)
        for name in columns
    ]
    return scan.select(wanted).collect()


def _leaked(entry: JSONValue, rejected: pl.DataFrame, candidates: int) -> JSONValue:
    """What was searched for, and where it was found: rows with an interval, the first matches with their words."""
    assert isinstance(entry, dict)  # the manifest is ours
    hits = rejected.filter(pl.col("stage") == f"decontaminate:{entry['name']}")
    low, high = wilson(hits.height, candidates)
    matches: list[JSONValue] = []
    groups = (
        hits.head(_MATCHES).with_columns(found=pl.col("detail").str.extract_groups(_MATCH)).unnest("found")
    )
    for row in groups.iter_rows(named=True):
        matches.append(
            {"id": row["id"], "reason": row["reason"], "item": row["1"], "side": row["2"], "words": row["4"]}
        )
    reasons = dict(hits["reason"].value_counts().sort("reason").iter_rows())
    return {**entry, "rows": hits.height, "low": round(low, 5), "high": round(high, 5), "reasons": reasons,
            "matches": matches}  # fmt: skip


def _planned(folder: Path) -> dict[str, list[str]]:
    """The attributes of a run's `sample` source with their values."""
    run = RunFolder(folder)
    if not run.recipe.is_file() or not run.journal.is_dir():
        return {}
    params = run.load_recipe().recipe.source.params
    if not isinstance(params, SampleParams):
        return {}
    return {
        name: [] if isinstance(values, FromFile) else [_text(value) for value in values]
        for name, values in params.attributes.items()
    }


def _text(value: JSONValue) -> str:
    if isinstance(value, dict) and "value" in value and set(value) <= {"value", "weight"}:
        value = value["value"]
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _with_attributes(folder: Path, candidates: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The candidates with the named fields: columns of the rows, or fields of their first step in `lineage/`."""
    lineage = _shards(folder, "lineage", ("id", "fields")).unique("id", keep="first", maintain_order=True)
    fields = [pl.col("fields").str.json_path_match(f'$["{name}"]').alias(name) for name in names]
    of_lineage = lineage.select("id", *fields)
    own = pl.concat([_shards(folder, kind, ("id", *names)) for kind in ("data", "rejected")])
    joined = (
        candidates.select("id", accepted=pl.col("stage").is_null())
        .join(own, on="id", how="left", maintain_order="left")
        .join(of_lineage, on="id", how="left", maintain_order="left", suffix="_asked")
    )
    known = joined.with_columns(pl.coalesce(name, f"{name}_asked").alias(name) for name in names)
    for name in names:
        if known[name].is_null().all():
            raise UsageError(f"--by {name}: no row has such a field or column")
    return known
