"""Whether an exported student still answers like the checkpoint it was made from.

In: a checkpoint, what was exported from it, prompts. Out: `Agreement`. The checkpoint answers through transformers, the
export through the embedded teacher, both greedily: what differs is what users will see. One look at fifty answers
finds the usual ways an export breaks (template, stop token, weights in another order, too few bits).
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from synthgen.asking.local import LocalTeacher, LocalTeacherConfig
from synthgen.asking.outcome import Answer
from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.types import Message, Request, Sampling, TeacherIdentity

__all__ = ["Agreement", "Difference", "compare"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One prompt whose answers are not the same text."""

    prompt: str
    checkpoint: str
    exported: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """`same` of `prompts` answers are equal, whitespace around them aside."""

    prompts: int
    differences: tuple[Difference, ...]

    @property
    def same(self) -> int:
        """How many answers are equal."""
        return self.prompts - len(self.differences)


def compare(
    checkpoint: Path, exported: Path, prompts: Sequence[Sequence[Message]], *, max_tokens: int = 128
) -> Agreement:
    """Ask both; each prompt is a conversation that ends with the user.

    Raises:
        UsageError: no prompts, or the export gives no answer at all.
    """
    if not prompts:
        raise UsageError("no prompts to compare the export on")
    asked = [list(prompt) for prompt in prompts]
    expected = _answers_of_checkpoint(checkpoint, asked, max_tokens)
    given = asyncio.run(_answers_of_export(exported, asked, max_tokens))
    pairs = zip(asked, expected, given, strict=True)
    return Agreement(
        len(asked),
        tuple(
            Difference(prompt[-1].content, want, got)
            for prompt, want, got in pairs
            if _text(want) != _text(got)
        ),
    )


def _text(answer: str) -> str:
    """Decoders show a character that was cut off as one sign or as none."""
    return answer.replace("\ufffd", "").strip()


def _answers_of_checkpoint(
    checkpoint: Path, prompts: Sequence[Sequence[Message]], max_tokens: int
) -> list[str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, local_files_only=True)
    answers = []
    for prompt in prompts:
        turns = [{"role": message.role, "content": message.content} for message in prompt]
        inputs = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            written = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        fresh = written[0, inputs["input_ids"].shape[1] :]
        answers.append(str(tokenizer.decode(fresh, skip_special_tokens=True)))
    return answers


async def _answers_of_export(
    exported: Path, prompts: Sequence[Sequence[Message]], max_tokens: int
) -> list[str]:
    config = LocalTeacherConfig(provider="local", model=str(exported))
    who = TeacherIdentity(provider="local", route="local", pool=str(exported), model=str(exported))
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
    teacher = LocalTeacher(config)
    try:
        outcomes = [
            await teacher.answer(Request(messages=tuple(prompt), teacher=who, sampling=sampling))
            for prompt in prompts
        ]
    finally:
        await teacher.close()
    if not any(isinstance(outcome, Answer) for outcome in outcomes):
        raise UsageError(f"{exported}: no answer to any prompt: {outcomes[0]}")
    return [
        outcome.completions[0].text if isinstance(outcome, Answer) else str(outcome) for outcome in outcomes
    ]
