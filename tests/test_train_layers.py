"""`layers` of a student's file: a base without some of its layers."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from synthgen.errors import RecipeError, UsageError
from synthgen.train.base import load_base
from synthgen.train.config import LoadedStudent, load_student
from synthgen.train.plan import sizes_of
from tests.chat_templates import tokenizer
from tests.tiny_models import tiny_llama


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    reader = tokenizer("chatml")
    reader.save_pretrained(folder)
    tiny_llama(len(reader), num_hidden_layers=4).save_pretrained(folder)
    return folder


def student(base: Path, **keys: object) -> LoadedStudent:
    return load_student({"name": "thin", "base": str(base), "hardware": {"device": "cpu"}, **keys})  # type: ignore[dict-item]


def test_a_student_begins_with_layers_of_its_base(base: Path) -> None:
    whole, thin = LlamaForCausalLM.from_pretrained(base), load_base(student(base, layers=2)).model

    assert thin.config.num_hidden_layers == 2
    for ours, theirs in zip(thin.model.layers, (whole.model.layers[0], whole.model.layers[3]), strict=True):
        assert torch.equal(ours.mlp.up_proj.weight, theirs.mlp.up_proj.weight)


def test_a_plan_counts_the_layers_that_are_left(base: Path) -> None:
    thin = load_base(student(base, layers=2)).model

    assert sizes_of(str(base), student(base, layers=2).config).parameters == thin.num_parameters()


def test_more_layers_than_the_base_has_are_refused_by_line(base: Path) -> None:
    with pytest.raises(UsageError, match=r"student:\d+: layers: 5, but .* has 4"):
        load_base(student(base, layers=5))


def test_layers_of_a_base_in_four_bits_stay(base: Path) -> None:
    with pytest.raises(RecipeError, match="use method: lora"):
        student(base, layers=2, method="qlora")
