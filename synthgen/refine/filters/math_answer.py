"""Final answers of mathematical questions against the row's reference.

In: a frame of the view whose rows have a field with the right answer. Out: verdicts with the reasons `math_wrong`,
`math_unparsed` (never counted as right), `math_timeout`. Rows without a reference are kept, without a score.
Guarantee: every comparison ends. math-verify 0.9 has no bound of its own outside the main thread (torchtitan#4442,
open-r1#420), so it runs in a process that the kernel ends after `cpu_s` of CPU time.
Rejected: comparing texts (1/2 and 0.5 are one answer) and math-verify's own alarms (main thread only).
"""

import os
import select
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, cast

import orjson
import polars as pl
from pydantic import Field

import synthgen.refine
from synthgen.errors import UsageError
from synthgen.plugins import Plugin
from synthgen.refine.filters.fields import field_values
from synthgen.refine.filters.text import completion
from synthgen.refine.needs import NeedsField
from synthgen.refine.verdict import Verdicts
from synthgen.types import JSONValue

__all__ = ["MATH_ANSWER", "MathAnswerParams", "math_answer"]

_WORKER = Path(synthgen.refine.__file__).with_name("math_worker.py")
_START_S = 60.0  # importing sympy takes a second on a quiet machine
_OTHER_FORM = "the reference is neither a text nor a number, nor a list of one"
_REASONS = {"right": None, "wrong": "math_wrong", "unparsed": "math_unparsed", "timeout": "math_timeout"}


class MathAnswerParams(NeedsField):
    """`reference`: the row's field with the right answer: a number, LaTeX, the letter of a choice, or a solution that ends in
    `\\boxed{}` or `####`. `cpu_s` bounds one comparison; a usual one takes half a millisecond."""

    needs: ClassVar[str] = "reference"

    reference: str = "answer"
    cpu_s: float = Field(default=2.0, gt=0, le=60)


def math_answer(frame: pl.DataFrame, params: MathAnswerParams) -> Verdicts:
    """The final answer is not the reference; the score is 1 for right, else 0.

    Raises:
        UsageError: math-verify is not installed.
    """
    references = [_reference(value) for value in field_values(frame, params.reference)]
    answers = frame.select(completion()).to_series().to_list()
    said: list[str | None] = [None] * frame.height
    if any(reference is not None for reference in references):
        if find_spec("math_verify") is None:
            raise UsageError("filter 'math_answer' needs math-verify: pip install 'synthgen[math]'")
        with _Worker(params.cpu_s) as worker:
            said = [
                None if reference is None else worker.ask(reference, answer) if reference else "unparsed"
                for reference, answer in zip(references, answers, strict=True)
            ]
    reason = [_REASONS[word] if word else None for word in said]
    return Verdicts(
        pl.Series("reason", reason, pl.String),
        pl.Series("score", [None if word is None else float(word == "right") for word in said], pl.Float64),
        pl.Series("detail", [_OTHER_FORM if text == "" else None for text in references], pl.String),
        pl.Series("threshold", [1.0 if why else None for why in reason], pl.Float64),
    )


def _reference(value: JSONValue) -> str | None:
    """The right answer as a text; nothing in it where it is of a form that cannot be read; None where there is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return str(value).strip() if isinstance(value, str | int | float) else ""


class _Worker:
    """A process that compares; another one takes its place when it is ended."""

    def __init__(self, cpu_s: float) -> None:
        self._cpu_s = cpu_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, reference: str, answer: str) -> str:
        """`right`, `wrong`, `unparsed` or `timeout`."""
        process = self._process = self._process or self._start()
        written, read = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        try:
            written.write(orjson.dumps([reference, answer]) + b"\n")
            written.flush()
        except BrokenPipeError:
            self._end()
            return "timeout"
        # CPU time decides; this is for a process that sleeps.
        ready, _, _ = select.select([read], [], [], _START_S + 10 * self._cpu_s)
        word = read.readline().decode().strip() if ready else ""
        if word:
            return word
        self._end()
        return "timeout"

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-I", str(_WORKER), str(self._cpu_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


MATH_ANSWER = Plugin("math_answer", MathAnswerParams, math_answer, version=2)
