"""What can be said of many devices without one: shards of a process group that is none."""

import subprocess
import sys
from pathlib import Path

import pytest

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
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr

    whole, local = map(int, done.stdout.split())
    assert local == pytest.approx(whole / 8, rel=0.05)
