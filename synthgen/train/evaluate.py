"""The student beside its teacher, on rows it was not trained on.

In: a checkpoint, and conversations of the test split. Out: `Evaluation`: how often the student's greedy answer is its
teacher's, how near it comes otherwise, and how likely it finds what the teacher wrote; the same for another checkpoint
(the base, say) on the same rows, rendered alike. Guarantees: prompts and answers are rendered as in training, tool calls and reasoning
included; a row that cannot be rendered is counted, not skipped in silence; shares carry 95 % intervals; rows that the
student's own record says it was trained on are refused unless asked for.
Rejected: BLEU and ROUGE, whose numbers for free text rank styles; a judge (`synthgen generate` with the exported student
as a teacher asks one with all its checks).
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import orjson
import torch
from transformers import PreTrainedModel

from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.errors import UsageError
from synthgen.refine.shares import Estimate, binomial_p, wilson
from synthgen.train.answering import Written, nll, write_answers
from synthgen.train.checkpoints import find_checkpoint
from synthgen.train.config import DataConfig
from synthgen.train.conversation import Conversation
from synthgen.train.examples import Example
from synthgen.train.local_teacher import load_teacher
from synthgen.train.masks import mask
from synthgen.train.out_file import check_out_file
from synthgen.train.reading import read_dataset
from synthgen.train.student_folder import read_student_manifest
from synthgen.train.template import ChatFormat, chat_format
from synthgen.train.tokenizers import load_tokenizer
from synthgen.types import JSONValue

__all__ = ["Compared", "Evaluation", "Likeness", "Measured", "evaluate", "likeness"]

_LENGTHS = 2  # an answer may be so many times as long as the longest of the teacher's
_WORDS = re.compile(r"\w+")
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Likeness:
    """What two answers have in common.

    `same`: equal text, whitespace around it aside; `right`: that, or the same JSON value. `json`: whether the student wrote
    an object or a list of JSON, None where the teacher did not. `words`: F1 of the words of both, 0..1.
    """

    same: bool
    right: bool
    json: bool | None
    words: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One row: its last question, the teacher's answer, the student's, and whether that one ended by itself."""

    id: str
    prompt: str
    teacher: str
    student: str
    finished: bool
    likeness: Likeness


@dataclass(frozen=True, slots=True)
class Measured:
    """A checkpoint on all rows: shares as in `Likeness`, `json` of the rows whose teacher wrote JSON (None: no row).

    `words`: mean F1. `nll`: mean negative log likelihood of the teacher's tokens, nats a token.
    """

    checkpoint: str
    right: Estimate
    same: Estimate
    json: Estimate | None
    words: float
    nll: float
    finished: Estimate


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`better` and `worse`: rows that only the student, only the other one got right; `p`: of a sign test on them."""

    rows: int
    refused: dict[str, int]
    student: Measured
    against: Measured | None
    better: int | None
    worse: int | None
    p: float | None


def evaluate(
    checkpoint: str,
    dataset: Path,
    *,
    against: str | None = None,
    split: Literal["test", "train"] = "test",
    limit: int | None = None,
    max_tokens: int | None = None,
    batch_size: int = 16,
    out: Path | None = None,
    say: Tell | None = None,
) -> Evaluation:
    """Ask a checkpoint the questions of a dataset and compare; `out` gets a line of JSON for each row.

    Of a run the `split`, of files all rows; at most `limit`. `max_tokens`: of an answer, twice the longest of the
    teacher's where it is not given.

    Raises:
        UsageError: the rows were trained on, none can be rendered, or `out` cannot be written.
        SourceError: no such data or checkpoint.
    """
    if out is not None:
        check_out_file(out, dataset=dataset)
    find_checkpoint(checkpoint)
    data = _data_of(Path(checkpoint))
    if against is not None:
        load_tokenizer(against)  # a wrong name is told before the first checkpoint has answered
    conversations = _unseen(checkpoint, dataset, split, limit)
    student, rows, refused = _ask(checkpoint, conversations, data, max_tokens, batch_size, say)
    other, other_rows = None, None
    if against is not None:
        other, other_rows, _ = _ask(against, conversations, data, max_tokens, batch_size, say)
    if out is not None:
        write_bytes(out, b"".join(orjson.dumps(asdict(row)) + b"\n" for row in rows))
    better, worse = _won(rows, other_rows) if other_rows is not None else (None, None)
    p = binomial_p(better, better + worse) if better is not None and worse is not None else None
    return Evaluation(len(rows), refused, student, other, better, worse, p)


def _measured(checkpoint: str, rows: Sequence[Compared], loss: float) -> Measured:
    like = [row.likeness for row in rows]
    with_json = [one.json for one in like if one.json is not None]
    return Measured(
        checkpoint,
        right=_share([one.right for one in like]),
        same=_share([one.same for one in like]),
        json=_share(with_json) if with_json else None,
        words=sum(one.words for one in like) / len(like),
        nll=loss,
        finished=_share([row.finished for row in rows]),
    )


def _share(hits: Sequence[bool]) -> Estimate:
    found = wilson(sum(hits), len(hits))
    assert found is not None  # there are rows
    return found


# ---- rows


def _unseen(
    checkpoint: str, dataset: Path, split: Literal["test", "train"], limit: int | None
) -> Sequence[Conversation]:
    data = read_dataset(dataset, limit=limit, split=split)
    seen = _trained_on(Path(checkpoint))
    if split == "test" and seen and seen & set(data.files.values()):
        raise UsageError(
            f"{dataset}: {checkpoint} was trained on these files; name others, or say so with --split train"
        )
    return data.conversations


def _trained_on(checkpoint: Path) -> set[JSONValue]:
    """Digests of the files a student of ours was made from."""
    dataset = (read_student_manifest(checkpoint) or {}).get("dataset")
    files = dataset.get("files") if isinstance(dataset, dict) else None
    return set(files.values()) if isinstance(files, dict) else set()


def _ask(
    checkpoint: str,
    conversations: Sequence[Conversation],
    data: DataConfig,
    max_tokens: int | None,
    batch_size: int,
    say: Tell | None,
) -> tuple[Measured, list[Compared], dict[str, int]]:
    format = chat_format(load_tokenizer(checkpoint))
    refused: Counter[str] = Counter()
    examples: list[Example] = []
    for one in mask(conversations, format, data):
        if not isinstance(one, Example):
            refused[one.reason] += 1
        elif one.part == "answer":
            examples.append(one)
    if not examples:
        raise UsageError(f"{checkpoint}: no row can be asked: {dict(refused)}")
    model = load_teacher(checkpoint, dtype=None if torch.cuda.is_available() else torch.float32).model
    if torch.cuda.is_available():
        model.to("cuda")
    longest = max(example.spans[-1].end - example.spans[-1].start for example in examples)
    written = write_answers(
        model,
        [_prompt(example) for example in examples],
        stop_ids=_stops(model, format),
        pad_id=format.pad_id,
        max_tokens=max_tokens if max_tokens is not None else _LENGTHS * longest,
        batch_size=batch_size,
        done=(lambda n: say(f"{checkpoint}: {n} of {len(examples)} answers")) if say is not None else None,
    )
    by_id = {conversation.id: conversation for conversation in conversations}
    rows = [
        _compared(by_id[example.id], example, answer, format)
        for example, answer in zip(examples, written, strict=True)
    ]
    loss = nll(model, examples, pad_id=format.pad_id, batch_size=batch_size)
    return _measured(checkpoint, rows, loss), rows, dict(refused)


def _data_of(checkpoint: Path) -> DataConfig:
    """How the student's answers were rendered in training, but the last answer of a row alone.

    Raises:
        UsageError: it is a student that writes no answers.
    """
    config = (read_student_manifest(checkpoint) or {}).get("config")
    if not isinstance(config, dict):
        return DataConfig(train_on="last", reasoning="strip")
    if config.get("task") in ("classify", "embed"):
        raise UsageError(f"{checkpoint}: its task is {config['task']}: there are no answers to compare")
    return DataConfig.model_validate(config.get("data", {})).model_copy(update={"train_on": "last"})


def _prompt(example: Example) -> list[int]:
    ids: list[int] = example.input_ids[: example.spans[-1].start].tolist()
    return ids


def _stops(model: PreTrainedModel, format: ChatFormat) -> set[int]:
    known = getattr(model.generation_config, "eos_token_id", None)
    listed = known if isinstance(known, list) else [] if known is None else [known]
    return {format.stop_id, *listed}


# ---- one row


def _compared(conversation: Conversation, example: Example, answer: Written, format: ChatFormat) -> Compared:
    span = example.spans[-1]
    teacher = _text(format, example.input_ids[span.start : span.end - 1].tolist())  # without its stop token
    student = _text(format, answer.ids)
    asked = conversation.messages[span.message - 1].content if span.message else ""
    return Compared(example.id, asked, teacher, student, answer.finished, likeness(teacher, student))


def _text(format: ChatFormat, ids: Sequence[int]) -> str:
    return str(format.tokenizer.decode(list(ids), skip_special_tokens=False)).strip()


def likeness(teacher: str, student: str) -> Likeness:
    """Compare two answers."""
    wanted, got = _json(teacher), _json(student)
    same = teacher.strip() == student.strip()
    return Likeness(
        same,
        right=same or (wanted is not None and got == wanted),
        json=None if wanted is None else got is not None,
        words=_f1(teacher, student),
    )


def _json(text: str) -> list[JSONValue] | dict[str, JSONValue] | None:
    """The object or list a text is, also inside one code fence."""
    inside = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text.strip(), re.DOTALL)
    try:
        value = orjson.loads(inside[1] if inside else text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, list | dict) else None


def _f1(teacher: str, student: str) -> float:
    """Harmonic mean of precision and recall of words, as bags (Rajpurkar et al. 2016, SQuAD)."""
    theirs, ours = (Counter(_WORDS.findall(text.lower())) for text in (teacher, student))
    both = (theirs & ours).total()
    return 2 * both / (theirs.total() + ours.total()) if both else float(theirs == ours)


def _won(rows: Sequence[Compared], others: Sequence[Compared]) -> tuple[int, int]:
    """Rows that only the first, only the second has right."""
    theirs = {row.id: row.likeness.right for row in others}
    both = [(row.likeness.right, theirs[row.id]) for row in rows if row.id in theirs]
    return sum(a and not b for a, b in both), sum(b and not a for a, b in both)
