"""What a recipe's questions cost: every prompt rendered on the first rows, with stand-ins for answers not there yet.

In: a resolved recipe and the number of its rows. Out: one `Line` a (step, teacher) and a (judge, teacher), with requests,
tokens and money. Guarantee: a run that asks all that is planned costs between the ends, as long as a token is 2.5 to 5
bytes and answers use 0.1 to 1.0 of `max_tokens`. Rejected: prompt sizes guessed from the first prompt, which left out the
words of a rubric, most of what a judge reads.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from synthgen.asking import cost_usd
from synthgen.dataclasses import dataclass
from synthgen.pipeline.judgement import BEST_OF_STEP, JUDGE_STEP
from synthgen.pipeline.judging import shown
from synthgen.pipeline.resolve import Resolved
from synthgen.pipeline.rows import Counter, Row
from synthgen.pipeline.tree import Ask, Step
from synthgen.templates import Prompt, TemplateError, render_messages
from synthgen.types import JSONValue, Message, Request, Sampling, TeacherIdentity, Usage

__all__ = ["BYTES_PER_TOKEN", "PILOT_ROWS", "Line", "estimate"]

PILOT_ROWS = 200
_RENDERED_ROWS = 50  # of which the later prompts are rendered too
BYTES_PER_TOKEN = 4.0
_OUTPUT_TOKENS = 1000  # the limit where a recipe sets none
_STRANGER = TeacherIdentity("-", "-", "-", "-")


@dataclass(frozen=True, slots=True)
class _Case:
    """`output_share`: of `max_tokens`, how much answers use. `judged`: whether filters leave anything to the judges."""

    bytes_per_token: float
    output_share: float
    judged: bool = True


# English text has about 4 UTF-8 bytes a token with current tokenizers; code and other scripts fewer. What a filter or
# the duplicates take before the judges is not known beforehand and may be everything.
_LOW, _EXPECTED, _HIGH = _Case(5.0, 0.1, judged=False), _Case(BYTES_PER_TOKEN, 0.4), _Case(2.5, 1.0)
_CASES = (_LOW, _EXPECTED, _HIGH)


@dataclass(frozen=True, slots=True)
class Line:
    """One (step, teacher): requests, tokens and money; `usd` None: the price is unknown."""

    step: str
    teacher: str
    requests: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    usd_low: float | None
    usd_high: float | None


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Mean UTF-8 bytes of a prompt: of each step, of each judge, of each comparer."""

    steps: tuple[float, ...]
    judges: tuple[float, ...]
    comparers: tuple[float, ...]


def estimate(resolved: Resolved, pilot: Sequence[Row], rows: int) -> list[Line]:
    """The lines of a plan of `rows` valid rows; `pilot` are its first ones, up to `PILOT_ROWS`."""
    first = _first_prompts(resolved, pilot)
    sizes = [_sizes(resolved, pilot[:_RENDERED_ROWS], first, case) for case in _CASES]
    lines: list[Line] = []
    nodes = rows
    for depth, step in enumerate(resolved.tree.steps):
        lines += _step_lines(resolved, step, nodes, [size.steps[depth] for size in sizes])
        nodes *= step.samples
    return [*lines, *_judge_lines(resolved, nodes, sizes)]


def _step_lines(resolved: Resolved, step: Step, nodes: int, sizes: Sequence[float]) -> Iterator[Line]:
    requests = nodes * step.samples
    previous = 0.0
    for alias, share in step.choices:
        fraction = min(share, 1.0) - previous
        previous = min(share, 1.0)
        sampling = step.sampling[alias]
        asked = round(requests * fraction)
        # Samples that go together read the prompt once.
        most = resolved.specs[alias].config.most_samples(seeded=sampling.seed is not None)
        read = min(requests * fraction, nodes * math.ceil(step.samples * fraction / most))
        limit = sampling.max_tokens or _OUTPUT_TOKENS
        used = [
            Usage(round(read * size / case.bytes_per_token), 0, round(asked * limit * case.output_share))
            for case, size in zip(_CASES, sizes, strict=True)
        ]
        yield _line(resolved, step.name, alias, asked, used)


def _judge_lines(resolved: Resolved, candidates: int, sizes: Sequence[_Sizes]) -> Iterator[Line]:
    """One for every judge, at most: candidates that something free rejects are not shown to any."""
    for place, judge in enumerate(resolved.panel.judges if resolved.panel else ()):
        used = _judging(judge.prompt, judge.sampling.max_tokens, candidates, [s.judges[place] for s in sizes])
        yield _line(resolved, JUDGE_STEP, judge.spec.alias, candidates, used)
    samples = resolved.tree.steps[-1].samples
    for place, comparer in enumerate(resolved.contest.comparers if resolved.contest else ()):
        asked = candidates * (samples - 1)  # n groups of s samples, s (s - 1) ordered pairs each
        used = _judging(
            comparer.prompt, comparer.sampling.max_tokens, asked, [s.comparers[place] for s in sizes]
        )
        yield _line(resolved, BEST_OF_STEP, comparer.spec.alias, asked, used)


def _judging(prompt: Prompt, max_tokens: int | None, asked: int, sizes: Sequence[float]) -> list[Usage]:
    """A verdict is as long as the prompt's example of one, at most as long as is allowed."""
    limit = max_tokens or _OUTPUT_TOKENS
    said = (
        len(prompt.example.reply.encode()) / BYTES_PER_TOKEN
        if prompt.example
        else limit * _EXPECTED.output_share
    )
    outputs = (0.0, min(said, limit), limit)
    return [
        Usage(round(asked * size / case.bytes_per_token), 0, round(asked * output))
        if case.judged
        else Usage(0, 0, 0)
        for case, size, output in zip(_CASES, sizes, outputs, strict=True)
    ]


def _line(resolved: Resolved, step: str, alias: str, requests: int, used: Sequence[Usage]) -> Line:
    price = resolved.specs[alias].price
    low, expected, high = used
    return Line(
        step,
        alias,
        requests,
        expected.input_tokens,
        expected.output_tokens,
        *(None if price is None else cost_usd(price, usage) for usage in (expected, low, high)),
    )


def _first_prompts(resolved: Resolved, pilot: Sequence[Row]) -> float:
    """Mean size of the first rows' first prompts."""
    seen = Counter()
    asks = [ask for row in pilot for ask in resolved.tree.admit(row, seen)[:1]]
    return fmean([ask.request.input_tokens_bound() for ask in asks if isinstance(ask, Ask)] or [0.0])


def _sizes(resolved: Resolved, pilot: Sequence[Row], first: float, case: _Case) -> _Sizes:
    """Sizes of all prompts where answers have the length of `case`."""
    last = resolved.tree.steps[-1]
    response = _answer(last, case)
    walked = list(_walked(resolved, pilot, case))
    later: list[float] = [fmean(sizes) for sizes in zip(*(steps for steps, _ in walked), strict=True)]
    if not walked:  # steps that hand on more than text; each carries what the one before it said
        later = [first / 2 + len(_answer(step, case)) for step in resolved.tree.steps[:-1]]
    pairs = [pair for _, pair in walked] or [("?" * round(first), response)]
    panel = resolved.panel.judges if resolved.panel else ()
    comparers = resolved.contest.comparers if resolved.contest else ()
    return _Sizes(
        (first, *later),
        tuple(fmean(_shown_bytes(judge.prompt, *pair) for pair in pairs) for judge in panel),
        tuple(fmean(_shown_bytes(comparer.prompt, *pair) for pair in pairs) for comparer in comparers),
    )


def _walked(
    resolved: Resolved, pilot: Sequence[Row], case: _Case
) -> Iterator[tuple[list[float], tuple[str, str]]]:
    """For each row that can go all the way: the sizes of its later prompts, and what a judge would see."""
    if len(resolved.tree.steps) == 1 and not resolved.judging.aliases:
        return
    for row in pilot:
        try:
            yield _walk(resolved, row, case)
        except TemplateError:
            continue


def _walk(resolved: Resolved, row: Row, case: _Case) -> tuple[list[float], tuple[str, str]]:
    fields = dict(row.fields)
    later = []
    for depth, step in enumerate(resolved.tree.steps):
        if depth:
            renamed: dict[str, JSONValue] = {name: text.render(fields) for name, text in step.rename.items()}
            messages = render_messages(step.prompt, {**fields, **renamed})
            later.append(float(_size_bytes(messages, step.tools, step.response_schema)))
        # A field that a step rewrites has about the length it had.
        fields = {**dict.fromkeys(step.prompt.outputs, _answer(step, case)), **fields}
    return later, shown(resolved.tree.record.build(fields))


def _answer(step: Step, case: _Case) -> str:
    """Something as long as one of the outputs of a step."""
    limit = step.sampling[step.choices[0][0]].max_tokens or _OUTPUT_TOKENS
    size = limit * case.output_share * BYTES_PER_TOKEN / len(step.prompt.outputs)
    return "?" * max(1, round(size))


def _shown_bytes(prompt: Prompt, instruction: str, response: str) -> int:
    """The size of a judge's prompt about one answer, or about two of the same length."""
    fields: dict[str, JSONValue] = {"instruction": instruction if instruction.strip() else "?"}
    fields |= dict.fromkeys(("response", "response_a", "response_b"), response if response.strip() else "?")
    return _size_bytes(render_messages(prompt, fields))


def _size_bytes(messages: tuple[Message, ...], tools: str | None = None, schema: str | None = None) -> int:
    return Request(messages, _STRANGER, Sampling(), tools=tools, response_schema=schema).input_tokens_bound()
