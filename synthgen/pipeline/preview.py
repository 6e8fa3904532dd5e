"""What the first step would ask, word for word, before anything is sent.

In: a resolved recipe. Out: its first questions with row, teacher and messages, or what keeps a row from being asked.
Reads as many rows as it shows; renders with the code that asks.
"""

from itertools import islice

from synthgen.dataclasses import dataclass
from synthgen.pipeline.plan import source_rows
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.rows import Counter
from synthgen.pipeline.tree import Ask
from synthgen.types import JSONValue, Message

__all__ = ["Question", "first_questions"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the first step; with a `problem` the row is rejected instead. `row` is its number, from 1."""

    row: int
    step: str
    sample: int
    teacher: str = ""
    messages: tuple[Message, ...] = ()
    problem: str | None = None

    def as_json(self) -> dict[str, JSONValue]:
        """For `--json`."""
        return {
            "row": self.row,
            "step": self.step,
            "sample": self.sample,
            "teacher": self.teacher,
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "problem": self.problem,
        }


def first_questions(resolved: Resolved, most: int) -> list[Question]:
    """The first `most` questions in plan order.

    Raises:
        SourceError: the source cannot be read.
    """
    seen = Counter()
    questions = (
        Question(number, ask.step.name, ask.sample, ask.alias, ask.request.messages)
        if isinstance(ask, Ask)
        else Question(number, ask.step, ask.sample, problem=f"{ask.stage}/{ask.reason}: {ask.detail}")
        for number, row in enumerate(source_rows(resolved), start=1)
        for ask in resolved.tree.admit(row, seen)
    )
    return list(islice(questions, most))
