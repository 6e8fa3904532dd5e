"""Publishing a run: final shards, the texts beside them, the accounting check, the manifest.

In: a filled `Staging`, the gates' result over what the rows hold, the counts. Out: the published folder. Guarantee:
the counts that are published were checked against the rows that were staged.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
import polars as pl

from synthgen.assets import package_version
from synthgen.dataset import (
    CardFilters,
    CardInfo,
    CardPolicy,
    CardPrompt,
    CardTeacher,
    Staging,
    dataset_card,
    publish,
)
from synthgen.errors import SynthgenError
from synthgen.journal import JournalIndex
from synthgen.pipeline.gates import Gates
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.verdicts import Counts
from synthgen.policy import GateResult, licence_expression, licence_texts, notice_lines, policy_json
from synthgen.types import JSONValue

__all__ = ["TEXTS", "publish_run"]

TEXTS = ("README.md", "POLICY.json", "NOTICE", "LICENSES")

_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def publish_run(
    out: Path,
    staging: Staging,
    resolved: Resolved,
    gates: Gates,
    index: JournalIndex,
    counts: Counts,
    walked: int,
    phase: Callable[[str], None],
) -> None:
    """Cut the shards and commit them with card, policy files and manifest. `walked`: candidates there were.

    Raises:
        StorageError: the disk refuses.
        SynthgenError: the accounting does not add up (a bug; nothing is published).
    """
    phase("shards")
    decided = gates.published()
    # Digests and decisions stand in the manifest: a changed limit or price must not change a shard's bytes.
    stamp = {} if gates.enforced else {"policy_enforced": "false"}
    staging.finish(metadata={"dataset": resolved.loaded.recipe.name, **stamp})
    rows = _check_accounting(staging, counts, walked)
    captured = _captured(staging)
    publish(
        out,
        staging,
        texts=_texts(resolved, gates, decided, counts, rows, captured),
        manifest={**_manifest(resolved, gates, index, counts), "logprobs": captured},
        phase=phase,
    )


def _check_accounting(staging: Staging, counts: Counts, walked: int) -> dict[str, int]:
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
    return rows


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


def _texts(
    resolved: Resolved,
    gates: Gates,
    decided: GateResult,
    counts: Counts,
    rows: Mapping[str, int],
    captured: Mapping[str, JSONValue] | None,
) -> dict[str, bytes]:
    policy = policy_json(gates.registry, gates.ask, decided, enforced=gates.enforced)
    texts = {
        "README.md": dataset_card(_card(resolved, gates, decided, counts, rows, captured)).encode(),
        "POLICY.json": orjson.dumps(policy, option=_PRETTY),
        "NOTICE": ("\n".join(notice_lines(gates.registry, decided)) + "\n").encode(),
    }
    for name, text in licence_texts(gates.registry, decided).items():
        texts[f"LICENSES/{name}"] = text.encode()
    return texts


def _card(
    resolved: Resolved,
    gates: Gates,
    decided: GateResult,
    counts: Counts,
    rows: Mapping[str, int],
    captured: Mapping[str, JSONValue] | None,
) -> CardInfo:
    recipe, chain = resolved.loaded.recipe, resolved.chain
    prompts = [
        CardPrompt(step.name, step.prompt.name, str(step.prompt.version)) for step in resolved.tree.steps
    ]
    if resolved.judge:
        prompts.append(CardPrompt("judge", resolved.judge.prompt.name, str(resolved.judge.prompt.version)))
    return CardInfo(
        name=recipe.name,
        version=package_version(),
        description=recipe.description,
        train_rows=rows["data/train"],
        test_rows=rows["data/test"],
        rejected_rows=rows["rejected"],
        counts={"planned": counts.planned, **counts.outcomes},
        license=licence_expression(gates.registry, decided),
        teachers=tuple(
            CardTeacher(
                alias=item.part.alias,
                model=item.part.hf or item.part.model,
                route=item.part.route,
                role=item.part.role,
                license=" AND ".join(item.decision.licences) or None,
            )
            for item in decided.parts
        ),
        prompts=tuple(prompts),
        filters=CardFilters(chain.name, str(chain.version), tuple(step.id for step in chain.steps)),
        policy=CardPolicy(
            uses=gates.ask.uses,
            decision=decided.outcome,
            obligations=tuple(str(obligation) for obligation in decided.obligations),
            registry_date=gates.registry.released.isoformat(),
            enforced=gates.enforced,
        ),
        rejected_by={"/".join(key): count for key, count in sorted(counts.reasons.items())},
        logprobs=None if captured is None else bool(captured["ids_complete"]),
    )


def _manifest(resolved: Resolved, gates: Gates, index: JournalIndex, counts: Counts) -> dict[str, JSONValue]:
    chain, recipe = resolved.chain, resolved.loaded.recipe
    prompts: dict[str, JSONValue] = {
        step.name: {"name": step.prompt.name, "version": step.prompt.version, "digest": step.prompt.digest}
        for step in resolved.tree.steps
    }
    return {
        "name": resolved.loaded.recipe.name,
        "synthgen": package_version(),
        "recipe": resolved.loaded.digest,
        "policy_registry": gates.registry.version,
        "policy_enforced": gates.enforced,
        "evaluated": gates.ask.today.isoformat(),
        "uses": list(gates.ask.uses),
        "chain": {"name": chain.name, "version": chain.version, "digest": chain.digest},
        "dedup": recipe.refine.dedup.model_dump(mode="json"),
        "judge": _judge_entry(resolved),
        "target": recipe.target,
        "prompts": prompts,
        "complete": counts.outcomes.get("pending", 0) == 0,
        "counts": {"planned": counts.planned, **counts.outcomes},
        "flags": dict(sorted(counts.flags.items())),
        "reasons": {"/".join(key): count for key, count in sorted(counts.reasons.items())},
        # Ids only: what a server said of them may quote a prompt, and stays in the journal.
        "examples": {"/".join(key): leaf_id for key, (leaf_id, _) in sorted(counts.examples.items())},
        "journal": index.summary(),
    }


def _judge_entry(resolved: Resolved) -> JSONValue:
    """What decided on scores, as it was applied."""
    judge = resolved.judge
    if judge is None:
        return None
    compare, bound = judge.rule
    prompt = judge.prompt
    return {
        "teacher": judge.spec.alias,
        "prompt": {"name": prompt.name, "version": prompt.version, "digest": prompt.digest},
        "keep": f"{compare} {bound:g}",
    }
