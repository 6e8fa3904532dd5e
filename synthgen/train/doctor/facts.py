"""What machine this is, and which versions run on it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from synthgen.dataclasses import dataclass

__all__ = ["Device", "device_facts", "is_installed", "versions"]

_PACKAGES = (
    "synthgen",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "triton",
    "flash-attn",
    "liger-kernel",
    "bitsandbytes",
    "deepspeed",
)


@dataclass(frozen=True, slots=True)
class Device:
    """`type` as torch calls it; `capability` and `runtime` are those of CUDA, None elsewhere."""

    type: str
    name: str
    count: int
    memory_bytes: int
    bf16: bool
    capability: str | None
    runtime: str | None


def device_facts(type: str) -> Device:
    """Of the first device of that type: `cuda` or `cpu`."""
    if type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        major, minor = torch.cuda.get_device_capability(0)
        return Device(
            "cuda",
            properties.name,
            torch.cuda.device_count(),
            properties.total_memory,
            torch.cuda.is_bf16_supported(),
            f"{major}.{minor}",
            torch.version.cuda or torch.version.hip,
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(
        "cpu", platform.processor() or platform.machine(), os.cpu_count() or 1, memory, True, None, None
    )


def versions() -> dict[str, str | None]:
    """Of the packages that decide what is computed; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def is_installed(module: str) -> bool:
    """Whether it could be imported; nothing is."""
    return find_spec(module) is not None
