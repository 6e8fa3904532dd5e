"""Students made of their teacher's layers, and students of another architecture."""

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM, PreTrainedModel

from synthgen.errors import UsageError
from synthgen.train.depth import evenly, shallower
from synthgen.train.local_teacher import LocalTeacher
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.objective import Forward
from tests.tiny_models import VOCABULARY, tiny_llama

torch.set_num_threads(1)  # threads that share a core spin: minutes instead of seconds

IDS = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))


def deep_llama() -> PreTrainedModel:
    return tiny_llama(seed=1, num_hidden_layers=6, initializer_range=0.2).eval()


def mamba(layers: int = 2) -> PreTrainedModel:
    torch.manual_seed(3)
    config = MambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=layers,
        state_size=4,
        time_step_rank=2,
        use_cache=False,
    )
    return MambaForCausalLM(config).eval()


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def test_layers_are_spread_from_first_to_last() -> None:
    assert [evenly(30, kept) for kept in (1, 2, 4)] == [[29], [0, 29], [0, 10, 19, 29]]
    assert evenly(6, 6) == list(range(6))


@pytest.mark.parametrize("kept", [0, 7])
def test_more_layers_than_there_are_cannot_be_kept(kept: int) -> None:
    with pytest.raises(UsageError, match="a teacher that has 6"):
        evenly(6, kept)


@pytest.mark.parametrize("make", [deep_llama, mamba])
def test_all_layers_are_the_teacher(make) -> None:  # type: ignore[no-untyped-def]
    teacher = make()

    student = shallower(teacher, range(teacher.config.num_hidden_layers)).eval()

    torch.testing.assert_close(logits(student), logits(teacher))


def test_kept_layers_are_copies_and_the_teacher_is_left_alone() -> None:
    teacher = deep_llama()
    before = logits(teacher)

    student = shallower(teacher, [0, 3, 5])
    with torch.no_grad():
        student.model.layers[1].mlp.up_proj.weight += 1

    assert student.config.num_hidden_layers == 3
    torch.testing.assert_close(
        student.model.layers[1].self_attn.q_proj.weight, teacher.model.layers[3].self_attn.q_proj.weight
    )
    torch.testing.assert_close(logits(teacher), before, rtol=0, atol=0)


def test_a_shallower_student_generates_with_its_cache() -> None:
    student = shallower(deep_llama(), [0, 3, 5]).eval()

    cached, uncached = (
        student.generate(
            IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, do_sample=False, use_cache=cache
        )
        for cache in (True, False)
    )

    assert cached.tolist() == uncached.tolist()


def test_what_the_config_says_by_layer_is_cut_too() -> None:
    teacher = deep_llama()
    teacher.config.layer_types = ["a", "b", "c", "d", "e", "f"]

    assert shallower(teacher, [0, 3, 5]).config.layer_types == ["a", "d", "f"]


@pytest.mark.parametrize("keep", [[], [3, 0], [0, 0], [0, 6], [-1]])
def test_layers_that_are_not_there_are_refused(keep: list[int]) -> None:
    with pytest.raises(UsageError, match="name each once, in order, from 0"):
        shallower(deep_llama(), keep)


def losses(
    student: PreTrainedModel, teacher: PreTrainedModel, steps: int, learning_rate: float
) -> list[float]:
    objective = Distillation(
        LossConfig.model_validate({"logits": {"weight": 1.0}, "teacher": "x"}), teacher=LocalTeacher(teacher)
    )
    optimizer = torch.optim.AdamW(student.train().parameters(), lr=learning_rate)
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = objective(
            Forward(student(**inputs, use_cache=False).logits, IDS, IDS.numel() - len(IDS), inputs)
        )
        loss.value.backward()
        optimizer.step()
        found.append(loss.value.item())
    return found


def test_a_student_of_another_architecture_nears_its_teacher() -> None:
    found = losses(mamba(), deep_llama(), 60, 0.02)

    assert found[-1] < 0.2 * found[0]


def test_a_student_made_of_its_teacher_learns_from_it() -> None:
    teacher = deep_llama()

    found = losses(shallower(teacher, evenly(6, 3)), teacher, 30, 3e-3)

    assert found[-1] < 0.3 * found[0]
