"""A row's tree: steps, samples and list items, as one pure function of the replies known so far.

In: a root row and a way to look up replies. Out: the questions to ask next while asking, the leaves (candidates) when
refining; both halves walk the same tree, so they cannot disagree. Leaves come in plan order: samples in number order,
items in list order, depth first. `Leaf.id` = blake2b-128(root row, path) and does not depend on row order.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from synthgen.asking import TeacherSpec
from synthgen.dataclasses import dataclass, inner
from synthgen.journal import Reply
from synthgen.pipeline.privacy import ALLOW, REDACTED, Privacy
from synthgen.pipeline.rows import Numbers, Row
from synthgen.pipeline.tools import broken_call, missing_call
from synthgen.templates import (
    Parsed,
    Prompt,
    RecordTemplate,
    Template,
    TemplateError,
    Unusable,
    parse_reply,
    render_messages,
    split_thinking,
)
from synthgen.types import Completion, JSONValue, Message, Request, Sampling, digest

__all__ = ["Ask", "Asked", "Leaf", "Node", "Step", "Tree", "samples"]

State = Literal["candidate", "pending", "failed", "rejected"]
_Ended: TypeAlias = tuple[State, str, str | None, str | None]  # with stage, reason and detail


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the recipe, resolved. `choices`: alias and cumulative share of the teachers' weights.

    `reasoning`: whether records keep it; replies hold it either way. `capture` is what replies are asked to hold.
    """

    name: str
    prompt: Prompt
    choices: tuple[tuple[str, float], ...]
    samples: int
    rename: Mapping[str, Template]
    sampling: Mapping[str, Sampling]
    reasoning: bool
    capture: tuple[str, ...]
    response_schema: str | None
    tools: str | None = None
    tool_choice: str | None = None
    on_unreadable: Literal["stop", "warn"] = "stop"


@inner(frozen=True, slots=True)
class Node:
    """A row on its way: it is about to enter step `depth`."""

    row: Row
    depth: int
    path: tuple[str, ...]
    fields: Mapping[str, JSONValue]
    asked: tuple["Asked", ...]
    item: int
    redacted: frozenset[str] = frozenset()  # codes of what was replaced on the way


@inner(frozen=True, slots=True)
class Ask:
    """One question a node wants answered."""

    node: Node
    step: Step
    sample: int
    alias: str
    request: Request

    @property
    def path(self) -> tuple[str, ...]:
        """Where this question stands in the tree."""
        return _path(self.node, self.step, self.sample)


@inner(frozen=True, slots=True)
class Asked:
    """A question with its reply."""

    ask: Ask
    reply: Reply


@inner(frozen=True, slots=True)
class Leaf:
    """Where a branch ends. `messages` is set for candidates; rejects that never became one have none."""

    id: str
    row: Row
    state: State
    asked: tuple[Asked, ...]
    fields: Mapping[str, JSONValue]
    step: str
    sample: int
    messages: tuple[Message, ...] = ()
    stage: str | None = None
    reason: str | None = None
    detail: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The question of the last step: its samples share it."""
        last = self.asked[-1].ask
        return "/".join((self.row.id, *last.node.path, last.step.name))


class Tree:
    """The steps of a recipe as a way to grow rows."""

    def __init__(
        self,
        steps: tuple[Step, ...],
        specs: Mapping[str, TeacherSpec],
        record: RecordTemplate,
        seed: int,
        privacy: Privacy = ALLOW,
    ) -> None:
        self.steps = steps
        self.specs = specs
        self.record = record
        self.seed = seed
        self.privacy = privacy

    def admit(self, row: Row, seen: Numbers) -> list["Ask | Leaf"]:
        """The first questions of a row, each with its occurrence number; call once a row, in plan order."""
        occurrences: dict[str, int] = {}
        numbered: list[Ask | Leaf] = []
        for ask in self.asks(Node(row, 0, (), row.fields, (), 0)):
            if isinstance(ask, Ask):
                # Samples share a number. Their first is what they have in common, and most often it is sent as it is.
                common = ask.request if ask.sample == 0 else replace(ask.request, sample=0)
                key = common.key()
                if key not in occurrences:
                    occurrences[key] = seen.next(key)
                if occurrences[key]:
                    request = replace(ask.request, occurrence=str(occurrences[key]))
                    ask = Ask(ask.node, ask.step, ask.sample, ask.alias, request)
            numbered.append(ask)
        return numbered

    def asks(self, node: Node) -> list[Ask | Leaf]:
        """The questions of a node, one a sample, or the one leaf that says why there are none."""
        step = self.steps[node.depth]
        if node.row.problem is not None:
            return [self._leaf(node, step, 0, "rejected", "source", "malformed_row", node.row.problem)]
        fields, removed = self.privacy.row(node.fields)
        if removed:
            node = replace(node, fields=fields, redacted=node.redacted | removed)
        try:
            fields = node.fields
            if step.rename:
                renamed = {name: template.render(fields) for name, template in step.rename.items()}
                fields = {**fields, **renamed}
            messages = render_messages(step.prompt, fields)
        except TemplateError as error:
            return [self._leaf(node, step, 0, "rejected", "render", "missing_field", str(error))]
        messages, removed = self.privacy.prompt(messages)
        if removed - node.redacted:
            node = replace(node, redacted=node.redacted | removed)
        return [self._ask(node, step, sample, messages) for sample in range(step.samples)]

    def _ask(self, node: Node, step: Step, sample: int, messages: tuple[Message, ...]) -> "Ask | Leaf":
        alias = step.choices[0][0] if len(step.choices) == 1 else self._choose(step, node, sample)
        if (reason := self.privacy.objection(alias, messages)) is not None:
            at = replace(node, path=_path(node, step, sample))
            return self._leaf(at, step, sample, "rejected", "privacy", reason, f"not sent to {alias}")
        # A first question that was asked before gets another number from `admit`.
        occurrence = f"{node.asked[-1].reply.key}:{node.item}" if node.asked else "0"
        request = Request(
            messages=messages,
            teacher=self.specs[alias].identity,
            sampling=step.sampling[alias],
            tools=step.tools,
            tool_choice=step.tool_choice,
            response_schema=step.response_schema,
            capture=step.capture,
            sample=sample,
            occurrence=occurrence,
        )
        return Ask(node, step, sample, alias, request)

    def _choose(self, step: Step, node: Node, sample: int) -> str:
        """One of several teachers for a question: by weight, decided by seed, row and path alone."""
        text = f"{self.seed}\n{node.row.id}\n{'/'.join(_path(node, step, sample))}".encode()
        draw = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) / 2**64
        return next(alias for alias, share in step.choices if draw < share)

    def grow(self, ask: Ask, reply: Reply) -> list[Node | Leaf]:
        """What a reply leads to: nodes of the next step, or leaves."""
        step, before, path = ask.step, ask.node, ask.path
        asked = (*before.asked, Asked(ask, reply))
        read = _read(step, reply)
        if not isinstance(read, Parsed):
            node = Node(before.row, before.depth, path, before.fields, asked, before.item, before.redacted)
            return [self._leaf(node, step, ask.sample, *read)]
        depth, is_list = before.depth + 1, step.prompt.reply.kind == "list"
        last = depth == len(self.steps)
        grown: list[Node | Leaf] = []
        for item, values in enumerate(read.items):
            at = (*path, f"[{item}]") if is_list else path
            node = Node(before.row, depth, at, {**before.fields, **values}, asked, item, before.redacted)
            grown.append(self._candidate(node, ask, read.thinking) if last else node)
        return grown

    def _candidate(self, node: Node, ask: Ask, thinking: str | None) -> Leaf:
        """The finished record; `thinking` is what stood in a thinking block inside the reply's text."""
        completion = node.asked[-1].reply.completion
        assert completion is not None  # a failed reply never becomes a candidate
        reasoning = (completion.reasoning or thinking) if ask.step.reasoning else None
        try:
            messages = self.record.build(
                node.fields, reasoning=reasoning, tool_calls=completion.tool_calls if ask.step.tools else ()
            )
        except TemplateError as error:
            return self._leaf(node, ask.step, ask.sample, "rejected", "record", "missing_field", str(error))
        for message in messages:
            if not message.said.strip():
                said = f"the {message.role} turn"
                return self._leaf(node, ask.step, ask.sample, "rejected", "record", "blank", said)
        messages, removed = self.privacy.record(messages)
        leaf = self._leaf(node, ask.step, ask.sample, "candidate", None, None, None, messages)
        codes = node.redacted | removed
        return replace(leaf, flags=tuple(REDACTED + code for code in sorted(codes))) if codes else leaf

    def leaves(self, asks: Iterable["Ask | Leaf"], reply_of: Callable[[str], Reply | None]) -> Iterator[Leaf]:
        """All leaves behind these questions as far as the replies go; an unanswered one is one pending leaf."""
        for ask in asks:
            if isinstance(ask, Leaf):
                yield ask
                continue
            reply = reply_of(ask.request.key())
            if reply is None:
                yield self.pending(ask)
                continue
            for grown in self.grow(ask, reply):
                if isinstance(grown, Leaf):
                    yield grown
                else:
                    yield from self.leaves(self.asks(grown), reply_of)

    def pending(self, ask: "Ask") -> Leaf:
        """The leaf of a question that is not answered."""
        at = replace(ask.node, path=ask.path)
        return self._leaf(at, ask.step, ask.sample, "pending", "ask", "pending", None)

    @staticmethod
    def _leaf(
        node: Node,
        step: Step,
        sample: int,
        state: State,
        stage: str | None,
        reason: str | None,
        detail: str | None,
        messages: tuple[Message, ...] = (),
    ) -> Leaf:
        return Leaf(
            digest([node.row.id, *node.path]),
            node.row,
            state,
            node.asked,
            node.fields,
            step.name,
            sample,
            messages,
            stage,
            reason,
            detail,
        )


def _path(node: Node, step: Step, sample: int) -> tuple[str, ...]:
    """Where a question of a node stands in the tree."""
    return (*node.path, f"{step.name}#{sample}")


def _read(step: Step, reply: Reply) -> Parsed | _Ended:
    """The fields in a reply, or how the branch ends there."""
    completion = reply.completion
    if completion is None:
        return "failed", "ask", reply.reason, reply.message
    cut_off = completion.finish_reason == "length"
    parsed = _parse(step.prompt, completion)
    if isinstance(parsed, Unusable):
        return "rejected", "parse", "truncated" if cut_off else parsed.reason, parsed.detail
    broken = broken_call(step.tools, completion.tool_calls) if step.tools else None
    if broken is not None:
        return "rejected", "parse", "tool_call", broken
    uncalled = missing_call(step.tool_choice, completion.tool_calls) if step.tool_choice else None
    if uncalled is not None:
        return "rejected", "parse", "truncated" if cut_off else "no_tool_call", uncalled
    return parsed


def _parse(prompt: Prompt, completion: Completion) -> Parsed | Unusable:
    """The fields in a reply; one of tool calls alone is an empty text, where the prompt asks for nothing but text."""
    parsed = parse_reply(prompt, completion.text)
    if isinstance(parsed, Unusable) and completion.tool_calls and prompt.reply.kind == "text":
        thinking, _ = split_thinking(completion.text)
        return Parsed(({prompt.outputs[0]: ""},), thinking)
    return parsed


def samples(asks: Sequence[Ask | Leaf]) -> list[list[int]]:
    """Places of the samples of one question to one teacher, together; everything else by itself."""
    together: dict[tuple[int, str], list[int]] = {}
    for place, ask in enumerate(asks):
        question = (id(ask.node), ask.alias) if isinstance(ask, Ask) else (id(ask), "")
        together.setdefault(question, []).append(place)
    return list(together.values())
