"""On-policy distillation through TRL's trainers."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from synthgen.errors import UsageError
from synthgen.train import on_policy
from synthgen.train.on_policy import OnPolicyConfig, on_policy_trainer, require_trl
from synthgen.types import Message
from tests.chat_templates import tokenizer
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)  # threads that share a core spin: minutes instead of seconds

TOKENIZER = tokenizer("chatml")
PROMPTS = [[Message("user", text)] for text in ("Where?", "Really?", "In Paris?", "Why?")]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    tiny_llama(len(TOKENIZER), seed=1).save_pretrained(tmp_path / "teacher")
    TOKENIZER.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_student_learns_from_what_it_writes_itself(teacher: Path, tmp_path: Path) -> None:
    config = OnPolicyConfig(
        teacher=str(teacher), max_new_tokens=8, max_steps=2, batch_size=2, learning_rate=1e-3, cpu=True
    )
    student = tiny_llama(len(TOKENIZER), seed=2)
    before = student.model.layers[0].mlp.up_proj.weight.detach().clone()

    trainer = on_policy_trainer(student, TOKENIZER, PROMPTS, config, tmp_path / "out")
    result = trainer.train()

    assert result.global_step == 2
    assert result.training_loss > 0
    assert not torch.equal(before, trainer.model.model.layers[0].mlp.up_proj.weight.detach().cpu())


def test_a_teacher_with_other_tokens_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="different tokenizers"):
        on_policy_trainer(
            tiny_llama(), tokenizer("llama3"), PROMPTS, OnPolicyConfig(teacher=str(teacher)), tmp_path
        )


def test_a_server_needs_vllm_here(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_policy, "find_spec", lambda _: None)
    config = OnPolicyConfig(teacher=str(teacher), server="http://127.0.0.1:8000")

    with pytest.raises(UsageError, match="needs the package `vllm` here too"):
        on_policy_trainer(tiny_llama(), TOKENIZER, PROMPTS, config, tmp_path)


def test_another_trl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_trl()
    monkeypatch.setattr(on_policy, "version", lambda _: "1.17.0")

    with pytest.raises(UsageError, match=r"wired to TRL 1\.16, found 1\.17\.0"):
        require_trl()


def test_a_reverse_kl_over_several_tokens_of_a_server_is_refused() -> None:
    with pytest.raises(ValidationError, match="set top: 1, or beta: 0"):
        OnPolicyConfig(teacher="x", server="http://127.0.0.1:8000", top=20)
