"""What `train plan` promises of memory and work, checked against models that exist."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig

from synthgen.train.config import StudentConfig
from synthgen.train.plan import estimate, sizes_of


def student(**more: object) -> StudentConfig:
    return StudentConfig.model_validate({"name": "s", "base": "b", **more})


def base(folder: Path, **more: int) -> Path:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 300}
    LlamaConfig(**{**sizes, "num_attention_heads": 4, "num_key_value_heads": 2, **more}).save_pretrained(
        folder
    )
    return folder


def test_parameters_are_those_of_the_real_model(tmp_path: Path) -> None:
    folder = base(tmp_path)

    counted = sizes_of(str(folder), student())

    model = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(folder))
    assert counted.parameters == counted.trained == model.num_parameters()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # of peft 0.21
def test_adapters_are_those_peft_would_train(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = base(tmp_path)
    counted = sizes_of(str(folder), student(method="lora", lora={"r": 4}))

    model = AutoModelForCausalLM.from_config(LlamaConfig.from_pretrained(folder))
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert counted.trained == adapted.get_nb_trainable_parameters()[0]


def test_eight_billion_parameters_are_counted_without_their_memory(tmp_path: Path) -> None:
    """Llama-3.1-8B's config; in 32-bit weights with AdamW 16 bytes a parameter, and no card of 80 GB holds that."""
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256}
    folder = base(tmp_path, **sizes, num_attention_heads=32, num_key_value_heads=8)

    counted = sizes_of(str(folder), student())
    full = estimate(student(hardware={"precision": "fp32"}, steps={"micro_batch": 1}), counted, [1000] * 100)
    lora = student(method="lora", steps={"micro_batch": 1})
    adapters = estimate(lora, sizes_of(str(folder), lora), [1000] * 100)

    assert counted.parameters == 8_030_261_248
    states = full.weights_bytes + full.gradients_bytes + full.optimizer_bytes
    assert states == 16 * counted.parameters
    fits = {fit.card: fit for fit in full.cards}
    assert not fits["A100 80 GB"].fits
    assert fits["A100 80 GB"].cards_if_sharded >= 2
    assert {fit.card for fit in adapters.cards if fit.fits} >= {"A100 80 GB", "H100 80 GB"}


def test_work_is_six_flops_a_parameter_and_token_and_more_with_checkpointing(tmp_path: Path) -> None:
    counted = sizes_of(str(base(tmp_path)), student())
    lengths = [50] * 16

    plain = estimate(student(steps={"epochs": 2, "batch_size": 8}), counted, lengths)
    again = estimate(
        student(steps={"epochs": 2, "batch_size": 8}, hardware={"checkpointing": True}), counted, lengths
    )

    assert plain.steps == 4
    assert plain.flops == 6 * counted.parameters * 2 * 16 * 50
    assert again.flops == pytest.approx(plain.flops * 8 / 6)
    assert again.activations_bytes < plain.activations_bytes
