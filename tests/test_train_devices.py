"""What can be said of devices without one: shards of a process group that is none, and tensors without content."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from synthgen.train.batch import collate
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.step import batch_loss
from tests.autograd_walk import walk_backward
from tests.fake_devices import PATHS
from tests.tiny_models import examples, soft_example, tiny_llama

torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
LAYOUTS = ("padded", "packed")

SHARDED = """
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from synthgen.train.batch import collate
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.objective import Forward
from tests.tiny_models import examples, tiny_llama

torch.set_num_threads(1)
dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
model = tiny_llama()
whole = sum(p.numel() for p in model.parameters())
mesh = init_device_mesh("cpu", (8,))
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
local = sum(p.to_local().numel() for p in model.parameters())
batch = collate(examples(4), 2)
inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
out = model(**inputs, use_cache=False)
Distillation(LossConfig())(Forward(out.logits, batch["labels"], 10, inputs)).value.backward()
assert all(p.grad is not None and p.grad.to_local().shape == p.to_local().shape for p in model.parameters())
print(whole, local)
"""


def test_fsdp_holds_an_eighth_on_each_of_eight_devices() -> None:
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr

    whole, local = map(int, done.stdout.split())
    assert local == pytest.approx(whole / 8, rel=0.05)


@pytest.fixture(scope="module")
def fake() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_devices"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", PATHS)
def test_a_step_in_mixed_precision_is_on_cuda_and_single(
    fake: dict[str, Any], path: str, layout: str
) -> None:
    found = fake[f"step {path} {layout}"]

    assert set(found) == {"loss", "gradients", "norm", "moments", "weights"}, found
    for part in found.values():
        assert part == {"device": ["cuda:0"], "dtype": ["torch.float32"], "missing": 0}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", PATHS)
def test_the_engine_finds_gradients_in_the_type_of_the_weights(
    fake: dict[str, Any], path: str, layout: str
) -> None:
    dtype = {"padded": "torch.float32", "packed": "torch.bfloat16"}[layout]

    found = fake[f"backward {path} {layout}"]

    assert found == {"device": ["standin:0"], "dtype": [dtype], "missing": 0}


def test_a_batch_left_on_the_cpu_would_be_found(fake: dict[str, Any]) -> None:
    assert "device" in fake["misplaced"]


def test_a_gradient_left_on_the_cpu_would_be_found(fake: dict[str, Any]) -> None:
    assert "a gradient on cpu of a tensor on cuda:0" in fake["strayed"]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_walk_finds_the_gradients_of_the_engine(checkpointing: bool) -> None:
    whole, walked = tiny_llama(), tiny_llama()
    batch = collate([soft_example(row, 3) for row in examples(4)], 2)
    losses = []
    for model in (whole, walked):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.train()
        objective = Distillation(LossConfig.model_validate(PATHS["top-k"]))
        losses.append(batch_loss(model, objective, batch, 10, narrow=True).value)

    losses[0].backward()
    walk_backward(losses[1])

    for ours, theirs in zip(walked.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
