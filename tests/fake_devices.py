"""Our loss paths on tensors of devices that are not there; run as a program, it prints what came out of each as JSON.

A fake tensor has a shape, a type and a device, and no content: a tensor made on the wrong device, or a type that does
not fit, is an error as it would be on the device. Whole steps run on fake `cuda`: forward, backward, the norm of the gradients and
AdamW, in mixed precision as a GPU trains. Their backward passes are walked function by function (`autograd_walk.py`),
because autograd's engine of a CPU build knows no CUDA streams; the engine itself runs on a stand-in accelerator, torch's own
hook for backends in Python. Registering one changes the whole process, which is why this is a program.
"""

import ctypes
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
from torch.utils.checkpoint import set_checkpoint_early_stop
from transformers import PreTrainedModel

from synthgen.train.batch import collate, collate_packed
from synthgen.train.local_teacher import LocalTeacher
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.step import batch_loss
from tests.autograd_walk import walk_backward
from tests.tiny_models import examples, soft_example, tiny_llama

STAND_IN = "standin"
CUDA, META = 1, 14  # c10::DeviceType
CHOSEN = 5  # how many elements every mask selects: which ones is content, and there is none
PATHS: dict[str, dict[str, Any]] = {
    "labels": {},
    "top-k": {"kd": {"weight": 0.5, "k": 3}},
    "logits": {"logits": {"weight": 0.5, "temperature": 2.0}, "teacher": "beside"},
    "features": {"features": {"weight": 1.0, "layers": 1}, "teacher": "beside"},
}


class StandIn(_DummyBackendModule):
    """The module `torch.<name>` of the accelerator: what checkpointing and autocast ask of one."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        pass


class KnownCounts(TorchDispatchMode):
    """Masks select `CHOSEN` elements; without this their results would have no shape."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.nonzero.default:
            return torch.empty((CHOSEN, args[0].dim()), dtype=torch.int64, device=args[0].device)
        if func is torch.ops.aten.index.Tensor:
            places: list[Tensor | None] = []
            for place in args[1]:
                masks = place.dim() if place is not None and place.dtype is torch.bool else 0
                places += [torch.empty(CHOSEN, dtype=torch.int64, device=place.device) for _ in range(masks)]
                places += [] if masks else [place]
            return func(args[0], places)
        return func(*args, **(kwargs or {}))


def moved(module: nn.Module, device: str, dtype: torch.dtype) -> Any:
    """The module with fake parameters on the device; a fake tensor cannot be moved to a device that is not there."""
    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, value in store.items():
                if value is not None:
                    kind = dtype if value.is_floating_point() and store is part._parameters else value.dtype
                    fake = torch.empty(value.shape, dtype=kind, device=device)
                    store[name] = nn.Parameter(fake) if store is part._parameters else fake
    if isinstance(module, PreTrainedModel):
        module.tie_weights()
    return module


def fake_loss(
    path: str, device: str, *, packed: bool, dtype: torch.dtype, checkpointing: bool = False
) -> tuple[Tensor, nn.Module]:
    """The loss of a batch on the device, and the student. To be called under `FakeTensorMode`."""
    rows = [soft_example(row, 3) for row in examples(4)] if path == "top-k" else examples(4)
    batch = collate_packed([rows], 2) if packed else collate(rows, 2)
    batch = {
        name: torch.empty(value.shape, dtype=value.dtype, device=device) for name, value in batch.items()
    }
    student = moved(tiny_llama(num_hidden_layers=1), device, dtype)
    config = LossConfig(**PATHS[path])
    teacher = None
    if config.needs_teacher:
        teacher = LocalTeacher(
            moved(tiny_llama(seed=1, hidden_size=48, num_hidden_layers=1), device, torch.bfloat16)
        )
    objective = Distillation(config, teacher=teacher, width=32, layers=1)
    if objective.maps is not None:
        moved(objective.maps, device, dtype)
    if checkpointing:
        student.activation_checkpointing_enable()
    student.train()
    targets = torch.empty((), dtype=torch.int64, device=device)
    loss = batch_loss(student, objective, batch, targets, narrow=True)
    return loss.value, student


def step(path: str, *, packed: bool) -> dict[str, object]:
    """Forward, backward and the optimiser on fake CUDA, in mixed precision; packed, activations are recomputed."""
    with faked():
        with torch.autocast("cuda", torch.bfloat16):
            value, student = fake_loss(path, "cuda", packed=packed, dtype=torch.float32, checkpointing=packed)
        walk_backward(value)
        weights = [parameter for parameter in student.parameters() if parameter.requires_grad]
        gradients = told([weight.grad for weight in weights])
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer = torch.optim.AdamW(weights)
        optimizer.step()
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    return {
        "loss": told([value]),
        "gradients": gradients,
        "norm": told([norm]),
        "moments": told(moments),
        "weights": told(weights),
    }


def told(tensors: Sequence[Tensor | None]) -> dict[str, object]:
    """Their devices, their types, and how many are not there."""
    there = [one for one in tensors if one is not None]
    return {
        "device": sorted({str(one.device) for one in there}),
        "dtype": sorted({str(one.dtype) for one in there}),
        "missing": len(tensors) - len(there),
    }


def backward(path: str, *, packed: bool, bf16: bool, checkpointing: bool) -> dict[str, object]:
    """By autograd's engine, on the stand-in, in the precision of the weights."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    with faked():
        value, student = fake_loss(path, STAND_IN, packed=packed, dtype=dtype, checkpointing=checkpointing)
        with torch.autograd.set_multithreading_enabled(False):
            value.backward()
        return told([parameter.grad for parameter in student.parameters()])


def misplaced() -> str:
    """The negative control: labels on the CPU beside a model on the device."""
    with faked(), torch.no_grad():
        student = moved(tiny_llama(), "cuda", torch.float32)
        batch = {name: torch.empty_like(value) for name, value in collate(examples(2), 2).items()}
        try:
            batch_loss(student, Distillation(LossConfig()), batch, 1, narrow=True)
        except RuntimeError as error:
            return str(error)
    return ""


def allow_cuda() -> None:
    """Let what switches to the device of a tensor that says it is on `cuda` do nothing.

    In its table of devices a CPU build has no guard for CUDA, and that of a CUDA build aborts where there is no driver;
    this puts the one that does nothing (`meta`) there.
    """
    if torch.cuda.is_available():
        return
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[CUDA] = guards[META]


@contextmanager
def faked() -> Iterator[None]:
    """Fake tensors whose masks select a known number.

    Checkpointing ends its second forward pass by an exception, which the stand-in's guard in Python does not survive.
    """
    with FakeTensorMode(), KnownCounts(), set_checkpoint_early_stop(False):
        yield


class Strayed(torch.autograd.Function):
    """A loss whose gradient is left on the CPU."""

    @staticmethod
    def forward(context: Any, logits: Tensor) -> Tensor:
        context.shape = logits.shape
        return logits.sum()

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Tensor:
        return torch.ones(context.shape)


def strayed() -> str:
    """The negative control of the walk: it sees a gradient on another device."""
    with faked():
        leaf = torch.empty(2, 2, device="cuda", requires_grad=True)
        try:
            walk_backward(Strayed.apply(leaf * 2))
        except RuntimeError as error:
            return str(error)
    return ""


def pretend_cuda() -> None:
    """Let `torch.autocast` be on for `cuda`, as it is where there is one; where it finds none it switches itself off."""
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True


def main() -> None:
    """Everything, one line."""
    torch.set_num_threads(1)
    allow_cuda()
    pretend_cuda()
    _setup_privateuseone_for_python_backend(STAND_IN, backend_module=StandIn())
    found: dict[str, object] = {"misplaced": misplaced(), "strayed": strayed()}
    for path, packed in product(PATHS, (False, True)):
        name = f"{path} {'packed' if packed else 'padded'}"
        found[f"step {name}"] = said(partial(step, path, packed=packed))
        # Packed as large models are trained: in bf16, activations recomputed.
        found[f"backward {name}"] = said(
            partial(backward, path, packed=packed, bf16=packed, checkpointing=packed)
        )
    json.dump(found, sys.stdout)


def said(run: Callable[[], Mapping[str, object]]) -> dict[str, object]:
    """What came out, or what went wrong: one case does not hide the others."""
    try:
        return dict(run())
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:2000]}


if __name__ == "__main__":
    main()
