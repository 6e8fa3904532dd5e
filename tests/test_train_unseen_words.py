"""A student learns what tickets mean, not which rows there were: held-out tickets are in words it was never trained on.

SmolLM2-135M, some minutes on two cores with `OMP_NUM_THREADS=2`; in the folder SYNTHGEN_STUDENTS the student is kept.
"""

import os
from pathlib import Path

import pytest

from synthgen.asking.local_model import DEFAULT_MODEL, model_path
from synthgen.train.base import converted
from tests.runs import cli
from tests.unseen_tickets import HELD_OUT, TRAINING, tickets, write_tickets

ROWS = 50


def right(checkpoint: Path, rows: Path) -> float:
    found = cli("train", "evaluate", checkpoint, rows, "--json")
    assert found.code == 0, found.err
    assert found.json["student"]["right"]["n"] == ROWS
    return float(found.json["student"]["right"]["value"])


def words(rows: list[dict[str, str]]) -> set[str]:
    return {row["question"] for row in rows}


def test_no_held_out_ticket_is_a_training_ticket() -> None:
    assert not words(tickets(HELD_OUT, ROWS, seed=2)) & words(tickets(TRAINING, 240, seed=1))
    for part in ("products", "names"):
        assert not set(getattr(HELD_OUT, part)) & set(getattr(TRAINING, part))
    for category, problems in HELD_OUT.problems.items():
        assert not set(problems) & set(TRAINING.problems[category])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fourteen_steps_with_default_warm_up_teach_half_of_it(tmp_path: Path) -> None:
    folder = Path(os.environ.get("SYNTHGEN_STUDENTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    rows = write_tickets(folder / "seen.jsonl", TRAINING, 240, seed=1)
    held_out = write_tickets(folder / "unseen.jsonl", HELD_OUT, ROWS, seed=2)
    steps = {"max_steps": 14, "batch_size": 8, "learning_rate": 2e-4}
    settings = [f"steps.{name}={value}" for name, value in steps.items()]

    done = cli(
        "train", rows, "--base", DEFAULT_MODEL, "-o", folder / "unseen",
        *(part for setting in [*settings, "hardware.device=cpu", "evaluation.every=14"] for part in ("--set", setting)),
    )  # fmt: skip

    assert done.code == 0, done.err
    assert right(converted(DEFAULT_MODEL, model_path(DEFAULT_MODEL)), held_out) <= 0.05
    assert right(folder / "unseen", held_out) >= 0.5
