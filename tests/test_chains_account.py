"""Every bundled chain: what goes in comes out, kept or rejected, and each rejection says why."""

import json
from pathlib import Path

import polars as pl
import pytest

from synthgen.assets import asset_names
from synthgen.refine import RESULT, VIEW, load_chain, run_chain

EXAMPLES = Path(__file__).parent / "data" / "filters"
CHAINS = asset_names("filters")


def everything() -> pl.DataFrame:
    """All hand-written examples of all filters but those that start processes, good and bad."""
    lines = [
        json.loads(line.replace("{~}", ""))
        for path in sorted(EXAMPLES.glob("*.jsonl"))
        if path.stem != "code_tests"
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    rows = [
        {"id": str(place), **{name: row.get(name) for name in VIEW if name != "id"}}
        for place, row in enumerate(lines)
    ]
    return pl.DataFrame(rows, schema=VIEW)


@pytest.fixture(scope="module")
def examples() -> pl.DataFrame:
    return everything()


@pytest.mark.parametrize("name", CHAINS)
def test_accepted_and_rejected_are_the_input(name: str, examples: pl.DataFrame) -> None:
    judged = run_chain(load_chain(name), examples)

    rejected = judged["reason"].is_not_null()
    assert judged["id"].to_list() == examples["id"].to_list()
    assert 0 < rejected.sum() < examples.height
    assert judged.filter(~rejected).height + judged.filter(rejected).height == examples.height


@pytest.mark.parametrize("name", CHAINS)
def test_each_rejection_has_step_reason_score_and_threshold(name: str, examples: pl.DataFrame) -> None:
    chain = load_chain(name)
    rejected = run_chain(chain, examples).filter(pl.col("reason").is_not_null())

    steps = {f"filter:{step.id}" for step in chain.steps if step.on_reject != "flag"}
    assert set(rejected["stage"]) <= steps
    for column in ("stage", "reason", "score", "threshold"):
        assert rejected[column].null_count() == 0, column


@pytest.mark.parametrize("name", CHAINS)
def test_a_kept_row_has_no_reason_to_go(name: str, examples: pl.DataFrame) -> None:
    kept = run_chain(load_chain(name), examples).filter(pl.col("reason").is_null())

    for column in ("stage", "score", "threshold", "detail"):
        assert kept[column].null_count() == kept.height, column
    assert kept.schema == RESULT
