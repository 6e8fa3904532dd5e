"""The engine on a model of two layers: it learns, whatever the batches, and goes on where it was killed."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
import torch
from torch import Tensor

from synthgen.train.config import StudentConfig
from synthgen.train.engine import Trained, newest_checkpoint, train_model
from synthgen.train.examples import Example
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.metrics import Progress
from tests.chat_templates import tokenizer
from tests.tiny_models import examples, tiny_llama

torch.set_num_threads(1)

ROWS = examples(16)
KILLED = """
import os, signal, sys
from pathlib import Path
import tests.test_train_engine as engine
def kill(progress):
    if progress.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
engine.trained(Path(sys.argv[1]), progress=kill, **engine.STEPWISE)
"""
PAIR = """
import sys
from pathlib import Path
import torch
import tests.test_train_engine as engine
held_out = [[row] for row in engine.examples(4, seed=5)]
result = engine.trained(Path(sys.argv[1]), validation=held_out, **engine.SHARED)
torch.save(engine.weights(result), sys.argv[2])
"""
SHARED: dict[str, object] = {
    "steps": {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-3},
    "data": {"validation_share": 0.1},
    "evaluation": {"every": 2},
}
STEPWISE: dict[str, object] = {"steps": {"max_steps": 8, "batch_size": 4}, "evaluation": {"every": 2}}


def student(**sections: object) -> StudentConfig:
    settings: dict[str, object] = {
        "name": "tiny",
        "base": "none",
        "steps": {"max_steps": 8, "batch_size": 8},
        "hardware": {"device": "cpu"},
    }
    merged = settings | sections
    for name in ("steps",):
        merged[name] = {"learning_rate": 1e-2, **dict(merged[name])}  # type: ignore[call-overload]
    return StudentConfig.model_validate(merged)


def trained(
    work: Path,
    rows: Sequence[Sequence[Example]] | None = None,
    validation: Sequence[Sequence[Example]] = (),
    progress: object = None,
    **sections: object,
) -> Trained:
    work.mkdir(exist_ok=True)
    return train_model(
        tiny_llama(),
        tokenizer("chatml"),
        [[row] for row in ROWS] if rows is None else rows,
        validation,
        Distillation(LossConfig()),
        student(**sections),
        work,
        pad_id=2,
        progress=progress,  # type: ignore[arg-type]
    )


def weights(result: Trained) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in result.model.state_dict().items()}


def metrics(work: Path) -> list[dict[str, float]]:
    return [orjson.loads(line) for line in (work / "metrics.jsonl").read_bytes().splitlines()]


def losses(work: Path) -> list[float]:
    return [line["loss"] for line in metrics(work) if "loss" in line]


def test_the_loss_falls(tmp_path: Path) -> None:
    trained(tmp_path, steps={"max_steps": 30, "batch_size": 16})

    first, *_, last = losses(tmp_path)
    assert last < first / 2


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_accumulation_changes_nothing(tmp_path: Path, micro: int) -> None:
    """Sums in another order: what is left is rounding."""
    whole = trained(tmp_path / "whole", steps={"max_steps": 4, "batch_size": 8, "learning_rate": 1e-3})
    parts = trained(
        tmp_path / "parts",
        steps={"max_steps": 4, "batch_size": 8, "learning_rate": 1e-3, "micro_batch": micro},
    )

    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=1e-3, atol=1e-4)


def test_packed_rows_have_the_loss_of_unpacked_ones(tmp_path: Path) -> None:
    trained(tmp_path / "apart", ROWS_APART, steps={"max_steps": 3, "batch_size": 8, "learning_rate": 1e-3})
    trained(
        tmp_path / "packed",
        [ROWS[:8]],
        steps={"max_steps": 3, "batch_size": 1, "learning_rate": 1e-3},
        data={"packing": True},
    )

    assert losses(tmp_path / "packed") == pytest.approx(losses(tmp_path / "apart"), rel=1e-4)


ROWS_APART = [[row] for row in ROWS[:8]]


def test_the_loss_is_the_mean_over_all_targets_of_a_step(tmp_path: Path) -> None:
    model = tiny_llama()
    total = torch.zeros(())
    for row in ROWS[:8]:
        ids = torch.from_numpy(row.input_ids).long()[None]
        labels = torch.from_numpy(row.labels).long()[None]
        total += model(ids, labels=labels).loss.detach() * row.targets
    trained(tmp_path, ROWS_APART, steps={"max_steps": 1, "batch_size": 8, "micro_batch": 2})

    assert losses(tmp_path)[0] == pytest.approx(float(total / sum(r.targets for r in ROWS[:8])), rel=1e-5)


def test_a_killed_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed")], env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resumed = trained(tmp_path / "killed", **STEPWISE)
    whole = trained(tmp_path / "whole", **STEPWISE)

    assert resumed.resumed_from == 4
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    validation = [[row] for row in examples(4, seed=5)]
    whole = trained(tmp_path / "one", validation=validation, **SHARED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", PAIR, str(tmp_path / "two"), str(tmp_path / f"{rank}.pt")],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for process in pair:
        _, said = process.communicate(timeout=100)
        assert process.returncode == 0, said.decode()

    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(value, weights(whole)[name], rtol=1e-3, atol=1e-4)


def test_metrics_of_a_killed_training_are_those_of_a_whole_one(tmp_path: Path) -> None:
    trained(tmp_path / "a", **STEPWISE)
    lines = metrics(tmp_path / "a")

    # As if it had been killed behind step 7, with a torn line.
    for folder in (tmp_path / "a").glob("checkpoint-8"):
        (folder / "complete.json").unlink()
    with (tmp_path / "a" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "lo')
    trained(tmp_path / "a", **STEPWISE)

    assert [line["step"] for line in metrics(tmp_path / "a")] == [line["step"] for line in lines]
    assert losses(tmp_path / "a") == [line["loss"] for line in lines if "loss" in line]


def test_half_a_checkpoint_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-10").mkdir()
    (tmp_path / "checkpoint-10" / "model.safetensors").write_bytes(b"half")

    assert newest_checkpoint(tmp_path) is None
    assert not (tmp_path / "checkpoint-10").exists()


def test_the_validation_loss_is_the_mean_over_targets(tmp_path: Path) -> None:
    rows = examples(5, seed=3)
    result = trained(
        tmp_path,
        validation=[[row] for row in rows],
        steps={"max_steps": 1, "batch_size": 2},
        data={"validation_share": 0.1},
    )
    total = torch.zeros(())
    for row in rows:
        ids = torch.from_numpy(row.input_ids).long()[None]
        labels = torch.from_numpy(row.labels).long()[None]
        total += result.model(ids, labels=labels).loss.detach() * row.targets

    assert result.validation_loss == pytest.approx(float(total / sum(r.targets for r in rows)), rel=1e-5)


def test_training_stops_when_validation_gets_worse(tmp_path: Path) -> None:
    """Random rows have nothing in common: what is learnt of some makes the others unlikelier."""
    result = trained(
        tmp_path,
        validation=[[row] for row in examples(4, seed=9)],
        steps={"max_steps": 60, "batch_size": 8, "learning_rate": 3e-2, "schedule": "constant"},
        data={"validation_share": 0.1},
        evaluation={"every": 1, "patience": 2},
    )

    assert result.stopped_early
    evaluated = [line["eval_loss"] for line in metrics(tmp_path) if "eval_loss" in line]
    assert result.validation_loss == min(evaluated)


def test_adapters_are_merged(tmp_path: Path) -> None:
    result = trained(tmp_path, method="lora", lora={"r": 4})

    before = tiny_llama().state_dict()
    after = weights(result)
    assert after.keys() == before.keys()
    changed = {name.split(".")[-2] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_recomputing_activations_changes_nothing(tmp_path: Path) -> None:
    trained(tmp_path / "kept", steps={"max_steps": 2})
    trained(tmp_path / "again", steps={"max_steps": 2}, hardware={"device": "cpu", "checkpointing": True})

    assert losses(tmp_path / "again") == pytest.approx(losses(tmp_path / "kept"), rel=1e-5)


def test_bf16_learns(tmp_path: Path) -> None:
    trained(
        tmp_path,
        steps={"max_steps": 20, "batch_size": 16},
        hardware={"device": "cpu", "precision": "bf16"},
    )

    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_progress_is_told_after_each_step(tmp_path: Path) -> None:
    told: list[Progress] = []
    trained(tmp_path, progress=told.append, steps={"max_steps": 3})

    assert [(one.step, one.steps) for one in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1].remaining_s == 0
