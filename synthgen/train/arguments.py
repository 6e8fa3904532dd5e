"""The student's file in the words of TRL: arguments of its trainer, adapters for peft.

In: `StudentConfig`, a working folder, how many sequences there are. Out: `SFTConfig`, the number of steps, peft's settings, the
precision. Guarantees: what the file asks for and this machine cannot give (a GPU, Liger's kernels, DeepSpeed, an 8-bit
optimiser) is refused by name before a step is made; nothing is tokenised or packed by TRL, nothing is written to stdout.
"""

import math
from importlib.util import find_spec
from pathlib import Path

import torch
from peft import LoraConfig as PeftLora
from transformers import TrainingArguments
from trl import SFTConfig

from synthgen.errors import UsageError
from synthgen.train.config import StudentConfig
from synthgen.train.launch import LAUNCH, launch_path

__all__ = ["adapters_of", "precision_of", "trainer_arguments"]

_EVALUATIONS = 10  # of a training, where `evaluation.every` is not given
_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "sgd": "sgd",
    "adafactor": "adafactor",
    "adamw_8bit": "adamw_bnb_8bit",
}


def precision_of(config: StudentConfig) -> torch.dtype:
    """What is computed in: bf16 where the device has it and nothing else is asked for.

    Raises:
        UsageError: there is no such device.
    """
    cuda = torch.cuda.is_available()
    if config.hardware.device == "cuda" and not cuda:
        raise UsageError(
            "hardware.device: cuda, but torch sees none: install a CUDA build of torch, or set cpu"
        )
    if config.hardware.precision != "auto":
        return torch.float32 if config.hardware.precision == "fp32" else torch.bfloat16
    on_gpu = cuda and config.hardware.device != "cpu"
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32


def trainer_arguments(
    config: StudentConfig, work: Path, sequences: int, evaluates: bool
) -> tuple[SFTConfig, int]:
    """The arguments for `sequences` of training, and how many steps they make.

    Raises:
        UsageError: batch sizes do not divide, or something the file asks for is not installed or not here.
    """
    cpu = config.hardware.device == "cpu" or not torch.cuda.is_available()
    processes = TrainingArguments(output_dir=str(work), use_cpu=cpu, report_to="none", bf16=False).world_size
    batch = config.steps.batch_size
    micro = config.steps.micro_batch or max(batch // processes, 1)
    if batch % (micro * processes):
        raise UsageError(
            f"steps.batch_size {batch} is not divisible by {processes} processes of steps.micro_batch {micro} rows"
        )
    steps = config.steps.max_steps or math.ceil(config.steps.epochs * math.ceil(sequences / batch))
    every = config.evaluation.every or max(steps // _EVALUATIONS, 1)
    keeps_best = config.evaluation.patience is not None
    arguments = SFTConfig(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=batch // (micro * processes),
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.steps.schedule,
        warmup_steps=config.warmup_steps(steps),
        weight_decay=config.steps.weight_decay,
        max_grad_norm=config.steps.max_grad_norm,
        optim=_optimizer(config),
        bf16=precision_of(config) == torch.bfloat16 and config.hardware.precision != "pure-bf16",
        activation_checkpointing=config.hardware.checkpointing,
        use_liger_kernel=_liger(config, cpu),
        fsdp=True if config.hardware.fsdp else None,
        deepspeed=_deepspeed(config),
        use_cpu=cpu,
        logging_steps=1,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=max(config.evaluation.keep_checkpoints, 2),  # one stays while the next is written
        load_best_model_at_end=keeps_best,
        metric_for_best_model="eval_loss" if keeps_best else None,
        greater_is_better=False if keeps_best else None,
        restore_callback_states_from_checkpoint=True,
        seed=config.seed,
        data_seed=config.seed,
        report_to=[name for name in config.trackers if name != "tensorboard"] or "none",
        run_name=config.name,
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=not cpu,
        remove_unused_columns=False,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return arguments, steps


def adapters_of(config: StudentConfig) -> PeftLora | None:
    """What peft wants to know; None where all weights are trained."""
    if config.method == "full":
        return None
    lora = config.lora
    return PeftLora(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )


def _optimizer(config: StudentConfig) -> str:
    if config.steps.optimizer == "adamw_8bit" and find_spec("bitsandbytes") is None:
        raise UsageError(
            "steps.optimizer: adamw_8bit needs the package bitsandbytes: pip install bitsandbytes"
        )
    return _OPTIMIZERS[config.steps.optimizer]


def _liger(config: StudentConfig, cpu: bool) -> bool:
    wanted = config.hardware.liger
    missing = [name for name in ("liger_kernel", "triton") if find_spec(name) is None]
    if wanted is True and cpu:
        raise UsageError(
            "hardware.liger: its Triton kernels run on GPUs alone, and torch uses none: set auto or false"
        )
    if wanted is True and missing:
        raise UsageError(
            f"hardware.liger: {' and '.join(missing)} cannot be found: pip install liger-kernel, or set auto or false"
        )
    return wanted is not False and not missing and not cpu


def _deepspeed(config: StudentConfig) -> str | None:
    named = config.hardware.deepspeed
    if named is None:
        return None
    if find_spec("deepspeed") is None:
        raise UsageError(
            "hardware.deepspeed needs the package deepspeed: pip install deepspeed, or set hardware.fsdp: true"
        )
    return str(launch_path(named)) if named in LAUNCH else named
