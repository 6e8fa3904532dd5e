"""What the main process and the process of an embedded model say to each other: one JSON object a line.

First a `Load` line goes in and an empty `Reply` (or `fatal`) comes back; then `Ask` and `Cancel` lines go in, and
one `Reply` comes back for every `Ask` that was not cancelled, in the order in which answers end.
"""

from typing import Literal, TypedDict, final

__all__ = ["Ask", "Cancel", "Execution", "Failure", "Load", "Reply", "Setting", "Turn", "merge_system"]

Execution = Literal["accuracy", "performance"]
Failure = Literal["context", "validation", "memory"]
Setting = int | float | bool | list[str]


class Load(TypedDict):
    """What to load. `context` is the model's length in tokens, where known; `draft` a smaller model that writes ahead."""

    model: str
    draft: str | None
    device: str
    execution: Execution
    context: int | None


class Turn(TypedDict):
    """One message of a conversation."""

    role: str
    content: str


@final
class Ask(TypedDict):
    """One question. `settings` are attributes of OpenVINO GenAI's `GenerationConfig`, `json_schema` is JSON text."""

    id: int
    turns: list[Turn]
    max_tokens: int
    settings: dict[str, Setting]
    json_schema: str | None


@final
class Cancel(TypedDict):
    """Nobody waits for the answer of this id any more."""

    cancel: int


class Reply(TypedDict, total=False):
    """An answer (`text` and what follows), a question that failed (`failure`), or the end of all (`fatal`)."""

    id: int
    text: str
    finish: Literal["stop", "length", "unknown"]
    input_tokens: int
    output_tokens: int
    failure: Failure
    message: str
    fatal: str


def merge_system(turns: list[Turn]) -> list[Turn]:
    """For templates without a system role: its text goes in front of the first user turn."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [turn for turn in turns if turn["role"] != "system"]
    if not system:
        return rest
    if rest and rest[0]["role"] == "user":
        return [Turn(role="user", content=f"{system}\n\n{rest[0]['content']}"), *rest[1:]]
    return [Turn(role="user", content=system), *rest]
