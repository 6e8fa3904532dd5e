"""What judges said of published records, as rows of their sidecar."""

from collections.abc import Sequence

import polars as pl

from synthgen.pipeline.judged import Judging
from synthgen.pipeline.judgement import JUDGE_STEP, Judgement
from synthgen.pipeline.verdicts import Verdict
from synthgen.schema import judgements_schema

__all__ = ["judgements_frame"]


def judgements_frame(verdicts: Sequence[Verdict], judging: Judging, calibration: str | None) -> pl.DataFrame:
    """One row per judgement of an accepted or rejected record, in plan order, then in the order of the judges.

    A judge that only selects (`ship_score: false`) has none: what it wrote does not leave with the records.
    """
    rows = [
        _row(verdict.leaf.id, said, calibration if said.step == JUDGE_STEP else None)
        for verdict in verdicts
        if verdict.outcome in ("accepted", "rejected")
        for said in verdict.judgements
        if judging.ships_step(said.step)
    ]
    return pl.DataFrame(rows, schema=judgements_schema())


def _row(record_id: str, said: Judgement, calibration: str | None) -> dict[str, object]:
    scores = [
        {
            "name": name,
            "score": score,
            "written": said.written.get(name),
            "expected": name in said.expected,
        }
        for name, score in said.scores.items()
    ]
    return {
        "id": record_id,
        "step": said.step,
        "judge": said.judge,
        "teacher": said.alias,
        "served_model": said.served_model,
        "prompt": said.prompt.name,
        "prompt_version": said.prompt.version,
        "request_key": said.reply.key,
        "overall": said.overall,
        "scores": scores,
        "preferred": said.said,
        "rival": said.rival,
        "reason": said.reason,
        "problem": said.problem,
        "judge_id": said.identity,
        "calibration": calibration,
    }
