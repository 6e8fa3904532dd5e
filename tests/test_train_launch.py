"""Settings for launchers are what the launchers read, and kernels are taken where they run."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from peft import LoraConfig, get_peft_model
from transformers.integrations import deepspeed
from transformers.utils.quantization_config import QuantizationMethod

from synthgen.errors import UsageError
from synthgen.train import arguments
from synthgen.train.adapters import merged_from_disk
from synthgen.train.arguments import _deepspeed, _liger
from synthgen.train.base import four_bits
from synthgen.train.config import StudentConfig
from synthgen.train.launch import LAUNCH, launch_path
from tests.runs import cli
from tests.tiny_models import tiny_llama

DOCS = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")


def student(**hardware: object) -> StudentConfig:
    return StudentConfig.model_validate({"name": "x", "base": "y", "hardware": hardware})


@pytest.mark.parametrize(("name", "kind"), [("fsdp2", "FSDP"), ("ddp", "MULTI_GPU")])
def test_accelerate_loads_its_settings(name: str, kind: str) -> None:
    loaded = load_config_from_file(str(launch_path(name)))

    assert loaded.distributed_type == kind
    assert loaded.mixed_precision == "bf16"


def test_fsdp_is_its_second_version_and_saves_a_whole_model() -> None:
    settings = load_config_from_file(str(launch_path("fsdp2"))).fsdp_config

    assert settings["fsdp_version"] == 2
    assert settings["fsdp_state_dict_type"] == "FULL_STATE_DICT"


def test_every_fsdp_setting_is_one_accelerate_knows() -> None:
    known = {option for action in launch_command_parser()._actions for option in action.option_strings}

    for name in load_config_from_file(str(launch_path("fsdp2"))).fsdp_config:
        assert f"--{name}" in known or f"--{name.replace('_', '-')}" in known, name


class Filled(deepspeed.HfTrainerDeepSpeedConfig, HfDeepSpeedConfig):  # type: ignore[misc]
    """What transformers makes of the settings; without the package it lacks the base that accelerate has."""


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_deepspeeds_settings_are_filled_by_the_trainer(
    name: str, stage: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(deepspeed, "dep_version_check", lambda _: None)  # the package itself needs a GPU
    filled = Filled(str(launch_path(name)))
    arguments = SimpleNamespace(
        world_size=8, train_batch_size=2, per_device_train_batch_size=2, gradient_accumulation_steps=4,
        max_grad_norm=1.0, learning_rate=1e-5, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8,
        weight_decay=0.0, fp16=False, fp16_full_eval=False, bf16=True, bf16_full_eval=False,
        fp16_backend=None, half_precision_backend="auto", save_on_each_node=False, fp16_opt_level="O1",
    )  # fmt: skip

    filled.trainer_config_process(arguments)

    assert HfDeepSpeedConfig(str(launch_path(name))).is_zero3() is (stage == 3)
    assert filled.get_value("zero_optimization.stage") == stage
    assert filled.get_value("train_batch_size") == 64
    assert filled.get_value("bf16.enabled") is True


def test_the_launch_commands_of_the_docs_parse() -> None:
    (block,) = re.findall(r"^```bash\n(torchrun.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
    torchrun, made, launched = (shlex.split(line, comments=True) for line in block.splitlines())
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(torchrun[1:])
    assert (given.nproc_per_node, given.module, given.training_script) == ("8", True, "synthgen")
    asked = launch_command_parser().parse_args(launched[2:])
    assert (asked.config_file, asked.module, asked.training_script) == ("fsdp2.yaml", True, "synthgen")
    assert asked.training_script_args == given.training_script_args
    assert made[:3] == ["synthgen", "train", "config"]
    assert made[3] in LAUNCH


def test_settings_are_printed_or_written(tmp_path: Path) -> None:
    shown = cli("train", "config", "zero3")
    written = cli("train", "config", "zero3", "-o", tmp_path / "z.json")

    assert json.loads(shown.out)["zero_optimization"]["stage"] == 3
    assert written.code == 0, written.err
    assert (tmp_path / "z.json").read_text() == shown.out
    assert cli("train", "config", "zero3", "-o", tmp_path / "z.json").code == 2
    assert "did you mean 'zero3'" in cli("train", "config", "zero33").err
    missing = cli("train", "config", "zero3", "-o", tmp_path / "gone" / "z.json")
    assert (missing.code, "there is no folder" in missing.err) == (2, True)


# ---- what is asked for and cannot be had


def test_liger_is_taken_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda _: object())

    assert _liger(student(), cpu=False)
    assert not _liger(student(), cpu=True)
    assert not _liger(student(liger=False), cpu=False)


def test_liger_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="run on GPUs alone"):
        _liger(student(liger=True), cpu=True)


def test_liger_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda name: None if name == "triton" else object())

    assert not _liger(student(), cpu=False)
    with pytest.raises(UsageError, match="triton cannot be found"):
        _liger(student(liger=True), cpu=False)


def test_deepspeed_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda _: None)

    with pytest.raises(UsageError, match="pip install deepspeed"):
        _deepspeed(student(deepspeed="zero3"))


def test_shipped_deepspeed_settings_go_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda _: object())

    assert _deepspeed(student(deepspeed="zero3")) == str(launch_path("zero3"))
    assert _deepspeed(student(deepspeed="mine.json")) == "mine.json"


def test_qlora_quantises_to_nf4_and_computes_in_bf16() -> None:
    config = four_bits()

    assert config.quant_method == QuantizationMethod.BITS_AND_BYTES
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (
        True,
        "nf4",
        True,
    )
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks by a name transformers will drop
def test_adapters_are_merged_into_the_base_as_it_is_on_disk(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(tiny_llama(), settings)

    merged = merged_from_disk(adapted, str(tmp_path), dtype=torch.float32)

    base, whole = tiny_llama().state_dict(), adapted.merge_and_unload().state_dict()
    assert not torch.equal(
        whole["model.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"]
    )
    for name, value in merged.state_dict().items():
        torch.testing.assert_close(value, whole[name])
