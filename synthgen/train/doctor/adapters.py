"""What adapters must satisfy on a device, on a base in full and in four bits; and devices among themselves.

In: a device. Out: measures. `Skip` wherever the device or a package is not there: what did not run has not passed.
"""

import tempfile
from pathlib import Path

import orjson
import torch
from transformers import AutoModelForCausalLM

from synthgen.train.base import four_bits
from synthgen.train.config import Method
from synthgen.train.doctor.checks import Measured, Skip
from synthgen.train.doctor.facts import is_installed
from synthgen.train.doctor.model import Size, random_examples, random_model
from synthgen.train.doctor.training import train_random

__all__ = ["adapters_learning", "exchange_error"]

_SIZE = Size(width=128, layers=2, heads=4, vocabulary=128, spread=0.2)


def adapters_learning(method: Method, *, device: str) -> Measured:
    """Loss of the last of 30 steps of adapters, as a share of the first's; `qlora`: on a base in NF4.

    Raises:
        Skip: bitsandbytes is not installed, or the device is a CPU.
    """
    if method == "qlora":
        if not is_installed("bitsandbytes"):
            raise Skip("bitsandbytes is not installed")
        if device != "cuda":
            raise Skip("not run on a CPU: a base in 4 bits needs a CUDA device")
    rows = random_examples(32, vocabulary=_SIZE.vocabulary, shortest=12, longest=24)
    model = random_model(_SIZE, device="cpu")
    with tempfile.TemporaryDirectory(prefix="synthgen-doctor-") as name:
        if method == "qlora":
            model.save_pretrained(Path(name) / "base")
            model = AutoModelForCausalLM.from_pretrained(
                Path(name) / "base", quantization_config=four_bits(), dtype=torch.bfloat16
            )
        work = Path(name) / "work"
        work.mkdir()
        train_random(
            model,
            [[row] for row in rows],
            _SIZE,
            device,
            work,
            None,
            method=method,
            steps={"max_steps": 30, "batch_size": 16, "learning_rate": 1e-2},
            hardware={"precision": "auto"},
        )
        lines = [orjson.loads(line) for line in (work / "metrics.jsonl").read_bytes().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    return Measured(losses[-1] / losses[0], details={"first_loss": losses[0], "last_loss": losses[-1]})


def exchange_error(*, device: str) -> float:
    """Largest difference between what NCCL adds up over all GPUs and the sum.

    Raises:
        Skip: there are not two GPUs, or torch was built without NCCL.
    """
    if device != "cuda":
        raise Skip("not run on a CPU: NCCL exchanges between CUDA devices")
    count = torch.cuda.device_count()
    if count < 2:
        raise Skip("one GPU has nobody to exchange with")
    if not torch.distributed.is_nccl_available():
        raise Skip("this build of torch has no NCCL")
    parts = [torch.full((1024,), float(at + 1), device=f"cuda:{at}") for at in range(count)]
    torch.cuda.nccl.all_reduce(parts)
    return max(float((part - count * (count + 1) / 2).abs().max()) for part in parts)
