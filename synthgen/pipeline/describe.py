"""Everything a dataset says of itself: card, policy files, Croissant and SPDX, out of what was decided and what is there.

In: the manifest's own entries, the shards of `data/`, a decision. Out: texts by their path in the dataset. Guarantees:
publishing and `policy export` go through here, so that an export of an unchanged folder is what was published; the same
input gives the same bytes, dates come from the decision and never from the clock.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import orjson
import polars as pl

from synthgen.dataclasses import dataclass
from synthgen.dataset import (
    CardFile,
    CardFilters,
    CardInfo,
    CardPolicy,
    CardPrompt,
    CardTeacher,
    CardTerms,
    CardUse,
    dataset_card,
)
from synthgen.dataset.croissant import croissant
from synthgen.dataset.spdx import spdx
from synthgen.pipeline.judgement import JUDGING_STEPS
from synthgen.pipeline.report import OUTCOMES
from synthgen.policy import (
    LOCK_NAME,
    Ask,
    GateResult,
    Part,
    PartDecision,
    Registry,
    card_license,
    downstream,
    licence_expression,
    licence_texts,
    model_expression,
    notice_lines,
    obligations_md,
    policy_json,
    policy_stamp,
    resolve,
)
from synthgen.policy.attest import entry_toml
from synthgen.types import JSONValue

__all__ = ["Decided", "Rows", "about", "count_rows", "dataset_texts", "lock_text", "stamp"]

Entries = Mapping[str, JSONValue]

_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_BY = ("teacher", "served_model", "row_license", "seed_relation", "generation")


@dataclass(frozen=True, slots=True)
class Decided:
    """What the gate said of the rows, and to which question. `enforced` is false for reports."""

    registry: Registry
    ask: Ask
    result: GateResult
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of `data/`, counted by who wrote them and from what; `files` are all shards of the dataset."""

    files: tuple[CardFile, ...]
    columns: tuple[str, ...]
    groups: tuple[Mapping[str, object], ...]
    sources: tuple[str, ...]

    def total(self, prefix: str) -> int:
        """Rows of the shards whose path begins so."""
        return sum(file.rows for file in self.files if file.path.startswith(prefix))

    def counted(self, *keys: str) -> dict[tuple[object, ...], int]:
        """Rows by some of the columns; rows that lack one of them are left out."""
        found: dict[tuple[object, ...], int] = {}
        for group in self.groups:
            key = tuple(group[name] for name in keys)
            if None not in key:
                found[key] = found.get(key, 0) + cast(int, group["rows"])
        return found

    @property
    def generations(self) -> dict[int, int]:
        """Rounds of distillation behind the rows -> rows, fewest rounds first."""
        counted = self.counted("generation")
        return {cast(int, key[0]): counted[key] for key in sorted(counted, key=lambda key: cast(int, key[0]))}

    def as_entries(self) -> dict[str, JSONValue]:
        """What of it stands in the manifest."""
        return {"generations": {str(number): count for number, count in self.generations.items()}}


def count_rows(folder: Path, files: Sequence[CardFile]) -> Rows:
    """Read the few columns of `data/` under `folder` that tell who wrote the rows and from what."""
    shards = [folder / file.path for file in files if file.path.startswith("data/")]
    rows = pl.scan_parquet(shards)
    present = rows.collect_schema().names()
    missing = [
        pl.lit(None).alias(name) for name in _BY if name not in present
    ]  # written before there was a column
    groups = (
        rows.with_columns(missing)
        .group_by(_BY)
        .len("rows")
        .sort("rows", *_BY, descending=[True] + [False] * len(_BY))
        .collect()
    )
    sources = rows.select(pl.col("source").str.replace(r":\d+$", "").unique().sort()).collect()
    return Rows(
        tuple(sorted(files, key=lambda file: file.path)),
        tuple(present),
        tuple(groups.iter_rows(named=True)),
        tuple(sources.to_series().drop_nulls()),
    )


def stamp(decided: Decided | None) -> dict[str, str]:
    """Key-values of every shard."""
    if decided is None:
        return {"policy": "unevaluated"}
    values = policy_stamp(decided.registry, decided.ask, decided.result, enforced=decided.enforced)
    return values if decided.enforced else {**values, "policy_enforced": "false"}


def dataset_texts(info: CardInfo, rows: Rows, decided: Decided | None) -> dict[str, bytes]:
    """Every text beside the shards, by its path; without a decision only what needs none."""
    texts = {
        "README.md": dataset_card(info).encode(),
        "croissant.json": _json(croissant(info)),
        "spdx.json": _json(spdx(info)),
    }
    if decided is None:
        return texts
    registry, ask, result = decided.registry, decided.ask, decided.result
    texts["POLICY.json"] = _json(policy_json(registry, ask, result, enforced=decided.enforced))
    texts["OBLIGATIONS.md"] = obligations_md(result.obligations, ask.uses).encode()
    notice = [*notice_lines(registry, result), *_attribution(result, rows)]
    texts["NOTICE"] = ("\n".join(notice) + "\n").encode()
    for name, text in licence_texts(registry, result).items():
        texts[f"LICENSES/{name}"] = text.encode()
    return texts


def lock_text(decided: Decided | None) -> dict[str, bytes]:
    """The overrides that were applied, as the lock file of a folder that has no recipe beside it."""
    entries = decided.result.overrides if decided else ()
    return {LOCK_NAME: "\n".join(map(entry_toml, entries)).encode()} if entries else {}


def _json(value: JSONValue) -> bytes:
    return orjson.dumps(value, option=_PRETTY)


def _attribution(result: GateResult, rows: Rows) -> list[str]:
    """Where the source texts came from, if a licence wants them named."""
    owed = any(obligation.id == "SEED-ATTRIBUTION" for obligation in result.obligations)
    return [f"Source of rows: {source}" for source in rows.sources] if owed else []


def about(entries: Entries, rows: Rows, decided: Decided | None) -> CardInfo:
    """What there is to say, as plain values. `entries` are the manifest's own."""
    chain = cast(Mapping[str, JSONValue], entries["chain"])
    steps = cast(list[Mapping[str, str]], chain.get("steps") or [])
    counts = cast(Mapping[str, int], entries["counts"])
    captured = cast(Mapping[str, JSONValue] | None, entries.get("logprobs"))
    seeds = {
        (cast(str, key[0]), cast(str, key[1])): count
        for key, count in rows.counted("row_license", "seed_relation").items()
    }
    return CardInfo(
        name=cast(str, entries["name"]),
        version=cast(str, entries["synthgen"]),
        description=cast(str, entries.get("description") or ""),
        train_rows=rows.total("data/train"),
        test_rows=rows.total("data/test"),
        rejected_rows=rows.total("rejected/"),
        counts={name: counts[name] for name in ("planned", *OUTCOMES) if name in counts},
        rejected_by=cast(Mapping[str, int], entries["reasons"]),
        license=licence_expression(decided.registry, decided.result) if decided else None,
        hub_license=card_license(decided.registry, decided.result) if decided else "other",
        teachers=tuple(_teacher(item, rows, decided.registry) for item in decided.result.parts)
        if decided
        else (),
        prompts=tuple(_prompts(entries)),
        filters=CardFilters(
            cast(str, chain["name"]), str(chain["version"]), tuple(step["id"] for step in steps)
        ),
        policy=_policy(decided) if decided else None,
        generations=rows.generations,
        seeds=seeds,
        files=tuple(file for file in rows.files if file.path.startswith("data/")),
        columns=rows.columns,
        logprobs=None if captured is None else bool(captured["ids_complete"]),
    )


def _teacher(item: PartDecision, rows: Rows, registry: Registry) -> CardTeacher:
    part = item.part
    writes = part.role in ("teacher", "rewriter")
    served = {
        cast(str, group["served_model"]): cast(int, group["rows"])
        for group in rows.groups
        if _wrote(part, group) and group["served_model"]
    }
    return CardTeacher(
        alias=part.alias,
        model=part.hf or part.model,
        route=part.route,
        role=part.role,
        license=model_expression(item),
        served_models=tuple(sorted(served)) if writes else (),
        rows=sum(cast(int, g["rows"]) for g in rows.groups if _wrote(part, g)) if writes else None,
        generation=item.decision.generation,
        url=_weights_url(part, registry),
    )


def _weights_url(part: Part, registry: Registry) -> str | None:
    """Where the weights are published: only for open ones that are named by `org/name`."""
    family = resolve(registry, part.model, part.hf, part.route)
    name = (part.hf or part.model).partition("@")[0]
    if family is None or family.weights != "open" or name.count("/") != 1:
        return None
    return f"https://huggingface.co/{name}"


def _wrote(part: Part, group: Mapping[str, object]) -> bool:
    """Whether the rows of a group had their last step from this teacher, on these source texts."""
    same_texts = (group["row_license"], group["seed_relation"]) == (part.row_license, part.seed_relation)
    if part.provider == "foreign":
        return same_texts and part.model == (group["served_model"] or group["teacher"])
    return same_texts and part.alias == group["teacher"]


def _prompts(entries: Entries) -> list[CardPrompt]:
    """In the order of the steps; the manifest itself is sorted by names."""
    stored = cast(Mapping[str, Mapping[str, JSONValue]], entries.get("prompts") or {})
    prompts = {step: stored[step] for step in cast(list[str], entries.get("steps") or sorted(stored))}
    for role in JUDGING_STEPS:
        said = cast(Mapping[str, JSONValue] | None, entries.get(role))
        # Manifests of one judge named its prompt directly.
        judges = cast(list[Mapping[str, JSONValue]], said.get("judges", [said]) if said else [])
        several = len(judges) > 1
        for judge in judges:
            name = f"{role} {judge['name']}" if several else role
            prompts[name] = cast(Mapping[str, JSONValue], judge["prompt"])
    return [CardPrompt(step, cast(str, p["name"]), str(p["version"])) for step, p in prompts.items()]


def _policy(decided: Decided) -> CardPolicy:
    registry, ask, result = decided.registry, decided.ask, decided.result
    answers = downstream(registry, (item.part for item in result.parts), ask)
    return CardPolicy(
        uses=ask.uses,
        decision=result.outcome,
        obligations=tuple(map(str, result.obligations)),
        registry_date=registry.released.isoformat(),
        enforced=decided.enforced,
        evaluated=ask.today.isoformat(),
        downstream=tuple(CardUse(a.use, a.decision, "; ".join(a.because)) for a in answers),
        terms=tuple(_terms(result)),
        warnings=result.warnings,
        overrides=tuple(
            f"{entry.kind} by {entry.who} of {entry.signed}, {', '.join(entry.rules)} for {entry.use}, until {entry.expires}"
            for entry in result.overrides
        ),
    )


def _terms(result: GateResult) -> list[CardTerms]:
    """Documents that rules of the decision cite, ours left out."""
    cited = [c for item in result.parts for c in item.decision.citations if c.url and c.layer != "identity"]
    found = {
        CardTerms(
            citation.layer,
            f"{citation.doc}, {citation.effective} (seen {citation.as_of}, {citation.evidence})",
            citation.url,
        )
        for citation in cited
    }
    return sorted(found, key=lambda terms: (terms.kind, terms.name, terms.url))
