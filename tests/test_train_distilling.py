"""From a student's file to a loss: the two calls an engine makes."""

from pathlib import Path

import pytest
import torch

from synthgen.errors import SourceError, UsageError
from synthgen.train.batch import collate
from synthgen.train.config import DataConfig
from synthgen.train.conversation import Conversation
from synthgen.train.distilling import objective_for, soft_examples, without_projectors
from synthgen.train.examples import IGNORED, Example
from synthgen.train.losses.config import LossConfig, TopKConfig
from synthgen.train.masks import mask
from synthgen.train.objective import Forward
from synthgen.train.score import score_conversations
from synthgen.train.template import chat_format
from synthgen.types import Message
from tests.chat_templates import tokenizer
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)  # threads that share a core spin: minutes instead of seconds

FORMAT = chat_format(tokenizer("chatml"))
CONVERSATIONS = [
    Conversation((Message("user", "Where?"), Message("assistant", text)), (True, True), id=text)
    for text in ("In Paris.", "The capital of France.", "Really?")
]
LOSS = {"kd": {"weight": 0.4, "k": 5}, "features": {}, "logits": {"weight": 0.2}, "teacher": "teacher"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a wider teacher and its scores of three answers, as a run would have them."""
    tiny_llama(len(FORMAT.tokenizer), seed=1, hidden_size=48, initializer_range=0.2).save_pretrained(
        tmp_path / "teacher"
    )
    FORMAT.tokenizer.save_pretrained(tmp_path / "teacher")
    scored = score_conversations(CONVERSATIONS, str(tmp_path / "teacher"), tmp_path / "logprobs", k=5)
    assert (scored.turns, dict(scored.refused)) == (3, {})
    return tmp_path


def test_scores_that_cannot_be_made_leave_nothing(folder: Path) -> None:
    teacher = str(folder / "teacher")
    (folder / "file").write_bytes(b"")

    with pytest.raises(UsageError, match="k = 1000000: the teacher has"):
        score_conversations(CONVERSATIONS, teacher, folder / "more", k=1_000_000)
    with pytest.raises(UsageError, match="file: is a file; name a folder"):
        score_conversations(CONVERSATIONS, teacher, folder / "file", k=5)

    assert not (folder / "more").exists()


def examples() -> list[Example]:
    return [one for one in mask(CONVERSATIONS, FORMAT, DataConfig()) if isinstance(one, Example)]


def test_a_student_is_trained_on_everything_its_file_names(folder: Path) -> None:
    config = LossConfig.model_validate(LOSS)
    student = tiny_llama(len(FORMAT.tokenizer), seed=2)
    assert config.kd is not None
    labelled = soft_examples(config.kd, examples(), FORMAT.tokenizer, run=folder)
    objective = objective_for(config, student, FORMAT.tokenizer, path=folder.joinpath)
    batch = collate(labelled.examples, FORMAT.pad_id)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    extras = {name: batch[name] for name in ("kd_ids", "kd_logprobs")}
    targets = int((batch["labels"] != IGNORED).sum())
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3)
    losses = []

    for _ in range(20):
        optimizer.zero_grad()
        out = student(**inputs, output_hidden_states=objective.needs_hidden)
        loss = objective(
            Forward(out.logits, batch["labels"], targets, inputs, extras, tuple(out.hidden_states))
        )
        loss.value.backward()
        optimizer.step()
        losses.append({name: part.item() for name, part in loss.parts.items()})

    assert set(losses[0]) == {"ce", "kd", "logits", "features"}
    taught = ("kd", "logits", "features")  # its teacher is random: what it says is not what the labels say
    assert all(losses[-1][name] < 0.9 * losses[0][name] for name in taught)


def test_projectors_are_no_part_of_the_saved_student(folder: Path) -> None:
    student = tiny_llama(len(FORMAT.tokenizer))
    before = set(student.state_dict())

    objective_for(LossConfig.model_validate(LOSS), student, FORMAT.tokenizer, path=folder.joinpath)

    assert set(student.state_dict()) - before == {"synthgen_projectors.0.weight"}
    assert set(without_projectors(student).state_dict()) == before


def test_a_teacher_of_other_tokens_is_refused(folder: Path) -> None:
    config = LossConfig.model_validate({"logits": {}, "teacher": "teacher"})

    with pytest.raises(UsageError, match="different tokenizers"):
        objective_for(config, tiny_llama(), tokenizer("gemma"), path=folder.joinpath)


def test_a_missing_teacher_is_named(folder: Path) -> None:
    FORMAT.tokenizer.save_pretrained(folder / "empty")
    config = LossConfig.model_validate({"logits": {}, "teacher": "empty"})

    with pytest.raises(SourceError, match="no causal language model"):
        objective_for(config, tiny_llama(), FORMAT.tokenizer, path=folder.joinpath)


def test_data_without_captures_says_what_to_name() -> None:
    with pytest.raises(UsageError, match=r"loss\.kd\.logprobs"):
        soft_examples(TopKConfig(), examples(), FORMAT.tokenizer, run=None)
