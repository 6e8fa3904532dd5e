"""Publishing a run: final shards, the texts beside them, the accounting check, the manifest.

In: a filled `Staging`, the gates' result over what the rows hold, the counts. Out: the published folder. Guarantee:
the counts that are published were checked against the rows that were staged.
"""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import polars as pl

from synthgen.assets import package_version
from synthgen.dataset import Staging
from synthgen.dataset.publish import publish
from synthgen.errors import SynthgenError
from synthgen.journal import JournalIndex
from synthgen.pipeline.checked import checked
from synthgen.pipeline.clustering import ClusterRule
from synthgen.pipeline.contest import Contest
from synthgen.pipeline.decontamination import Decontamination
from synthgen.pipeline.describe import Decided, about, count_rows, dataset_texts, lock_text, stamp
from synthgen.pipeline.gates import Gates
from synthgen.pipeline.holdout import withhold_leaks
from synthgen.pipeline.judging import Panel
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.selecting import select_rows
from synthgen.pipeline.verdicts import Counts
from synthgen.templates import Prompt
from synthgen.types import JSONValue

__all__ = ["publish_run"]


def publish_run(
    out: Path,
    staging: Staging,
    resolved: Resolved,
    gates: Gates,
    index: JournalIndex,
    counts: Counts,
    walked: int,
    phase: Callable[[str], None],
    against: Decontamination | None = None,
    *,
    with_lock: bool = False,
    calibration: str | None = None,
    clusters: ClusterRule | None = None,
) -> None:
    """Cut the shards and commit them with card, policy files and manifest. Rows that the recipe does not select, then
    train rows that ask what test rows ask, are withdrawn before, and `counts` follows. `walked`: candidates there were.

    `calibration`: that of the panel as it is. `clusters`: the rule by which duplicates were withdrawn, where that was not
    the plan's order. `with_lock`: the folder has no copy of the recipe's lock file, so the overrides that were applied go along.

    Raises:
        StorageError: the disk refuses.
        UsageError: the recipe selects by a score that no row has.
        SynthgenError: the accounting does not add up (a bug; nothing is published).
    """
    phase("shards")
    select = resolved.loaded.recipe.refine.select
    if select is not None:
        select_rows(staging, select, counts)
    withheld = withhold_leaks(staging, counts)
    decided = Decided(gates.registry, gates.ask, gates.published(staging.policy_ids), gates.enforced)
    # No date, limit or price stands in a shard: what changes none of its rows and duties changes none of its bytes.
    staging.finish(metadata={"dataset": resolved.loaded.recipe.name, **stamp(decided)})
    _check_accounting(staging, counts, walked)
    rows = count_rows(staging.new, staging.files)
    entries = {
        **_manifest(resolved, gates, index, counts, calibration),
        **rows.as_entries(),
        "decontamination": [*(against.said() if against else []), *withheld],
        "logprobs": _captured(staging),
    }
    if clusters is not None:
        entries["dedup"] = clusters.as_json()
    publish(
        out,
        staging,
        texts=dataset_texts(about(entries, rows, decided), rows, decided)
        | (lock_text(decided) if with_lock else {}),
        manifest=entries,
        phase=phase,
    )


def _check_accounting(staging: Staging, counts: Counts, walked: int) -> None:
    """Rows staged by kind, compared with the counts of verdicts, and those with the leaves that were walked."""
    if counts.planned != walked:
        raise SynthgenError(f"accounting: {walked} candidates, {counts.planned} verdicts; please report this")
    rows = dict.fromkeys(("data/train", "data/test", "rejected", "quarantine"), 0)
    for path, count in staging.rows.items():
        for kind in rows:
            if path.startswith(kind):
                rows[kind] += count
    staged = {
        "accepted": rows["data/train"] + rows["data/test"],
        "rejected": rows["rejected"],
        "quarantined": rows["quarantine"],
    }
    for outcome, count in staged.items():
        if counts.outcomes.get(outcome, 0) != count:
            raise SynthgenError(
                f"accounting: {counts.outcomes.get(outcome, 0)} candidates were {outcome}, {count} are staged; "
                "please report this"
            )


def _captured(staging: Staging) -> dict[str, JSONValue] | None:
    """What the logprobs sidecar holds, None where there is none.

    `ids_complete`: every token and alternative has its id in the `tokenizers`' vocabulary; without that the sidecar
    tells how sure a teacher was, but a student cannot be trained on it.
    """
    shards = [staging.new / path for path in staging.rows if path.startswith("logprobs/")]
    if not shards:
        return None
    columns = pl.read_parquet(shards, columns=["tokenizer", "served_model", "ids_complete"])
    return {
        "replies": columns.height,
        "ids_complete": bool(columns["ids_complete"].all()),
        "tokenizers": columns["tokenizer"].drop_nulls().unique().sort().to_list(),
        "served_models": columns["served_model"].drop_nulls().unique().sort().to_list(),
    }


def _manifest(
    resolved: Resolved, gates: Gates, index: JournalIndex, counts: Counts, calibration: str | None
) -> dict[str, JSONValue]:
    chain, recipe = resolved.chain, resolved.loaded.recipe
    prompts: dict[str, JSONValue] = {
        step.name: {"name": step.prompt.name, "version": step.prompt.version, "digest": step.prompt.digest}
        for step in resolved.tree.steps
    }
    return {
        "name": resolved.loaded.recipe.name,
        "description": resolved.loaded.recipe.description,
        "synthgen": package_version(),
        "recipe": resolved.loaded.digest,
        "policy_registry": gates.registry.version,
        "policy_enforced": gates.enforced,
        "evaluated": gates.ask.today.isoformat(),
        "uses": list(gates.ask.uses),
        "chain": chain.as_json(),
        "dedup": recipe.refine.dedup.model_dump(mode="json"),
        "judge": _judge_entry(resolved.panel, calibration),
        "best_of": _best_of_entry(resolved.contest),
        "select": None if recipe.refine.select is None else recipe.refine.select.model_dump(mode="json"),
        "target": recipe.target,
        "prompts": prompts,
        "steps": list(prompts),
        "complete": counts.outcomes.get("pending", 0) == 0,
        "counts": {"planned": counts.planned, **counts.outcomes},
        "flags": dict(sorted(counts.flags.items())),
        "checked": cast(JSONValue, checked(chain, counts)),
        "reasons": {"/".join(key): count for key, count in sorted(counts.reasons.items())},
        # Ids only: what a server said of them may quote a prompt, and stays in the journal.
        "examples": {"/".join(key): leaf_id for key, (leaf_id, _) in sorted(counts.examples.items())},
        "journal": index.summary(),
    }


def _judge_entry(panel: Panel | None, calibration: str | None) -> JSONValue:
    """What decided on scores, as it was applied; `calibration` None: nobody compared these judges with people."""
    if panel is None:
        return None
    return {
        "id": panel.id,
        "judges": [
            _asked(judge.name, judge.spec.alias, judge.prompt, dict(judge.weights)) for judge in panel.judges
        ],
        "keep": {name: f"{compare} {bound:g}" for name, (compare, bound) in panel.rules.items()},
        "combine": panel.combine,
        "min_judges": panel.min_judges,
        "calibration": calibration,
    }


def _best_of_entry(contest: Contest | None) -> JSONValue:
    """Who found the best of several samples."""
    if contest is None:
        return None
    judges = [_asked(one.name, one.spec.alias, one.prompt) for one in contest.comparers]
    return {"keep": contest.keep, "judges": cast(JSONValue, judges)}


def _asked(
    name: str, alias: str, prompt: Prompt, weights: dict[str, JSONValue] | None = None
) -> dict[str, JSONValue]:
    named: JSONValue = {"name": prompt.name, "version": prompt.version, "digest": prompt.digest}
    weighed: dict[str, JSONValue] = {} if weights is None else {"weights": weights}
    return {"name": name, "teacher": alias, "prompt": named, **weighed}
