"""What can be said of devices without one: shards of a process group that is none, and tensors without content."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fake_devices import PATHS

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
def test_a_loss_in_mixed_precision_is_on_cuda_and_single(
    fake: dict[str, Any], path: str, layout: str
) -> None:
    assert fake[f"forward {path} {layout}"] == {"device": "cuda:0", "dtype": "torch.float32"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", PATHS)
def test_gradients_are_on_the_accelerator_in_the_type_of_the_weights(
    fake: dict[str, Any], path: str, layout: str
) -> None:
    dtype = {"padded": "torch.float32", "packed": "torch.bfloat16"}[layout]

    found = fake[f"backward {path} {layout}"]

    assert found == {"device": ["standin:0"], "dtype": [dtype], "missing": 0}


def test_a_batch_left_on_the_cpu_would_be_found(fake: dict[str, Any]) -> None:
    assert "device" in fake["misplaced"]
