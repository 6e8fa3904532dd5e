"""Conversations to token ids and targets: what the student is trained to write.

In: `Conversation`s, a `ChatFormat`, the section `data`. Out: `Example`s whose targets are the assistant's words and the
token that ends its turn, and for each conversation that gives none the reason. Guarantees, each verified on every
example by decoding its targets and comparing:

- targets are what follows the prompt of inference, word for word, up to and with the stop token: no template has to
  mark them, because a turn is found by rendering the conversation before it with the generation prompt and after it;
- where a template shows an earlier turn differently once later ones follow (old reasoning is dropped), the record gives
  one example for each such turn, as the student will see it, instead of one whose past it never sees;
- nothing is cut: `fitting` counts what is too long.

Rejected: `{% generation %}` markers (most templates have none, and TRL knows those of 30 by heart), masks by pad id (pad
is the stop token of many models).
"""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np

from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.train.config import DataConfig
from synthgen.train.conversation import Conversation, tool_list
from synthgen.train.examples import Example, Part, Span
from synthgen.train.template import ChatFormat, Unusable
from synthgen.types import JSONValue, Message

__all__ = ["Refused", "fitting", "mask"]

_CHUNK = 256  # conversations tokenised at once


@dataclass(frozen=True, slots=True)
class Refused:
    """A conversation that gives no example: its id and place, a reason code, words for people."""

    id: str
    where: str
    reason: str
    problem: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A conversation whose turns `turns` are targets."""

    conversation: Conversation
    turns: tuple[int, ...]
    part: Part = "answer"
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class _Turn:
    """What precedes message `at` and what the assistant writes there, as text."""

    at: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class _Draft:
    """A text and the turns in it that are targets, in order."""

    wanted: _Wanted
    text: str
    turns: tuple[_Turn, ...]

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Of each target, where it begins and ends in the text."""
        return [(len(turn.prompt), len(turn.prompt) + len(turn.completion)) for turn in self.turns]


def mask(
    conversations: Iterable[Conversation], format: ChatFormat, data: DataConfig
) -> Iterator[Example | Refused]:
    """Examples of the conversations, in their order; a refused conversation gives nothing else."""
    remaining = iter(conversations)
    first = True
    while chunk := list(islice(remaining, _CHUNK)):
        drafts: list[_Draft | Refused] = []
        for conversation in chunk:
            try:
                _check_text(conversation, format)
                drafts += [
                    draft for wanted in _wanted(conversation, data) for draft in _drafts(wanted, format, data)
                ]
            except Unusable as problem:
                drafts.append(_refused(conversation, problem))
        yield from _tokenise(drafts, format, compare_prompts=first)
        first = False


def fitting(examples: Sequence[Example], max_length: int, *, drop: bool) -> tuple[list[Example], int]:
    """The examples of at most `max_length` tokens, and how many are longer.

    Raises:
        UsageError: some are longer and `drop` is not set, or none fits.
    """
    long = [example for example in examples if len(example) > max_length]
    if not long:
        return list(examples), 0
    longest = max(map(len, long))
    if not drop:
        names = ", ".join(example.id[:12] for example in long[:3])
        raise UsageError(
            f"{len(long)} of {len(examples)} rows have more than {max_length} tokens, the longest {longest} (rows {names}"
            f"{', ...' if len(long) > 3 else ''}): nothing is cut; set `data.max_length`, or `data.too_long: drop`"
        )
    if len(long) == len(examples):
        raise UsageError(f"every row has more than {max_length} tokens, the longest {longest}")
    return [example for example in examples if len(example) <= max_length], len(long)


# ---- which turns, of which variant


def _wanted(conversation: Conversation, data: DataConfig) -> Iterator[_Wanted]:
    turns = conversation.turns(last=data.train_on == "last")
    if not turns:
        raise Unusable("no_target", "no assistant message is to be trained on")
    messages = conversation.messages
    match data.reasoning:
        case "keep":
            yield _Wanted(conversation, tuple(turns))
        case "inline":
            inlined = [_inline(message, data.reasoning_tags) for message in messages]
            yield _Wanted(conversation.with_messages(inlined), tuple(turns))
        case "strip" | "separate":
            stripped = [replace(message, reasoning=None) for message in messages]
            yield _Wanted(conversation.with_messages(stripped), tuple(turns))
            if data.reasoning == "separate":
                for at in turns:
                    if reasoning := messages[at].reasoning:
                        yield _rationale(conversation.with_messages(stripped), at, reasoning, data)


def _inline(message: Message, tags: tuple[str, str]) -> Message:
    if not message.reasoning:
        return replace(message, reasoning=None)
    return replace(message, reasoning=None, content=f"{tags[0]}{message.reasoning}{tags[1]}{message.content}")


def _rationale(conversation: Conversation, at: int, reasoning: str, data: DataConfig) -> _Wanted:
    """The second task of Hsieh et al. 2023, "Distilling Step-by-Step!": the rationale for the same question."""
    before = list(conversation.messages[:at])
    asked = next((i for i in range(at - 1, -1, -1) if before[i].role == "user"), None)
    if asked is None:
        raise Unusable("no_question", "there is no user message whose rationale could be asked for")
    before[asked] = replace(before[asked], content=before[asked].content + data.rationale_prompt)
    told = conversation.with_messages([*before, Message("assistant", reasoning)], only=at)
    return _Wanted(told, (at,), "rationale", data.rationale_weight)


# ---- text


def _check_text(conversation: Conversation, format: ChatFormat) -> None:
    for message in conversation.messages:
        if any(format.control.search(text) for text in (message.content, message.reasoning or "")):
            raise Unusable(
                "control_token",
                f"a {message.role} message holds the text of a control token, which would end turns",
            )


def _drafts(wanted: _Wanted, format: ChatFormat, data: DataConfig) -> Iterator[_Draft]:
    """As few texts as can show each turn the way it is seen at inference."""
    messages, tools = wanted.conversation.messages, tool_list(wanted.conversation.tools)
    if tools and format.render(messages, tools) == format.render(messages):
        raise Unusable("tools_not_rendered", "the chat template ignores the list of tools")
    remaining = [_turn(messages, at, tools, format) for at in wanted.turns]
    drafts = []
    while remaining:
        text = remaining[-1].prompt + remaining[-1].completion
        seen = [turn for turn in remaining if text.startswith(turn.prompt + turn.completion)]
        drafts.append(_Draft(wanted, text, tuple(seen)))
        remaining = [turn for turn in remaining if turn not in seen]
    yield from reversed(drafts)


def _turn(messages: Sequence[Message], at: int, tools: list[JSONValue] | None, format: ChatFormat) -> _Turn:
    prompt = format.render(messages[:at], tools, prompt=True) if at else ""
    if not prompt:
        raise Unusable("no_prompt", "an assistant message stands first: nothing leads to it")
    through = format.render(messages[: at + 1], tools)
    if not through.startswith(prompt):
        raise Unusable(
            "prompt_mismatch",
            "the chat template writes the turn differently from the prompt that asks for it",
        )
    completion = through[len(prompt) :]
    completion = completion[: format.end_of_turn(completion)]
    _check_completion(messages[at], completion)
    return _Turn(at, prompt, completion)


def _check_completion(message: Message, completion: str) -> None:
    """Everything that was said is in it, in order."""
    if not message.content.strip() and not message.tool_calls and not message.reasoning:
        raise Unusable("empty_answer", "an assistant message is empty")
    place = 0
    said = [(message.reasoning or "", "reasoning"), (message.content, "content")]
    said += [(call.name, "tool_calls") for call in message.tool_calls]
    for text, what in said:
        at = completion.find(text.strip(), place)
        if at < 0:
            hint = "; `data.reasoning` can inline, strip or separate it" if what == "reasoning" else ""
            raise Unusable(f"{what}_not_rendered", f"the chat template does not render {what}{hint}")
        place = at + len(text.strip())


# ---- tokens


def _tokenise(
    drafts: Sequence[_Draft | Refused], format: ChatFormat, *, compare_prompts: bool
) -> Iterator[Example | Refused]:
    texts = [draft for draft in drafts if isinstance(draft, _Draft)]
    encoded = iter(format.encode([draft.text for draft in texts]))
    prompts = iter(format.encode([draft.turns[0].prompt for draft in texts])) if compare_prompts else None
    examples: list[Example | Refused] = []
    for draft in drafts:
        if isinstance(draft, Refused):
            examples.append(draft)
            continue
        ids, offsets = next(encoded)
        spans = _spans(draft, offsets)
        inference = next(prompts)[0] if prompts else None
        if not spans or (inference is not None and ids[: spans[0].start] != inference):
            ids, spans = _piece_by_piece(draft, format)
        wanted = draft.wanted
        examples.append(
            Example(
                np.array(ids, dtype=np.int32),
                tuple(spans),
                id=wanted.conversation.id,
                row=wanted.conversation.row,
                part=wanted.part,
                weight=wanted.weight,
            )
        )
    yield from _verified(drafts, examples, format)


def _spans(draft: _Draft, offsets: Sequence[tuple[int, int]]) -> list[Span]:
    """The targets as tokens; empty where a token reaches over the edge of one."""
    starts = [start for start, _ in offsets]
    spans = []
    for turn, (begin, end) in zip(draft.turns, draft.bounds, strict=True):
        first, behind = bisect.bisect_left(starts, begin), bisect.bisect_left(starts, end)
        if not 1 <= first < behind or offsets[first - 1][1] > begin or offsets[behind - 1][1] > end:
            return []
        spans.append(Span(first, behind, turn.at))
    return spans


def _piece_by_piece(draft: _Draft, format: ChatFormat) -> tuple[list[int], list[Span]]:
    """Tokens of each piece by itself, as at inference, where the prompt is tokenised before the answer exists."""
    cuts = [0, *(edge for bounds in draft.bounds for edge in bounds), len(draft.text)]
    pieces = format.encode([draft.text[a:b] for a, b in pairwise(cuts)])
    ids: list[int] = []
    edges = []
    for piece, _ in pieces:
        ids += piece
        edges.append(len(ids))
    return ids, [Span(edges[2 * i], edges[2 * i + 1], turn.at) for i, turn in enumerate(draft.turns)]


def _verified(
    drafts: Sequence[_Draft | Refused], examples: Sequence[Example | Refused], format: ChatFormat
) -> Iterator[Example | Refused]:
    """Decode and compare; a difference that tokenising piece by piece does not mend refuses the row."""
    whole = [example for example in examples if isinstance(example, Example)]
    edges = [
        example.input_ids[:edge]
        for example in whole
        for span in example.spans
        for edge in (span.start, span.end)
    ]
    decoded = iter(format.decode(edges))
    for draft, example in zip(drafts, examples, strict=True):
        if isinstance(draft, Refused) or isinstance(example, Refused):
            yield example
            continue
        said = [_between(next(decoded), next(decoded)) for _ in example.spans]
        if said != [turn.completion for turn in draft.turns]:
            ids, spans = _piece_by_piece(draft, format)
            example = replace(example, input_ids=np.array(ids, dtype=np.int32), spans=tuple(spans))
            again = format.decode(
                [example.input_ids[e] for s in spans for e in (slice(s.start), slice(s.end))]
            )
            said = [_between(again[2 * i], again[2 * i + 1]) for i in range(len(spans))]
        if said != [turn.completion for turn in draft.turns]:
            problem = Unusable("not_decodable", "its tokens do not give the text back (unknown characters)")
            yield _refused(draft.wanted.conversation, problem)
        else:
            yield example


def _between(before: str, through: str) -> str:
    """What `through` adds to `before`."""
    return through[len(before) :] if through.startswith(before) else ""


def _refused(conversation: Conversation, problem: Unusable) -> Refused:
    return Refused(conversation.id, conversation.where, problem.reason, str(problem))
