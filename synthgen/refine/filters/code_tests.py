"""Answers that are programs, run against the row's tests.

In: a frame of the view whose rows have a field of tests. Out: verdicts with the reasons `no_code`, `tests_failed`,
`tests_timeout`. Each program runs in `synthgen/refine/jail.py`, a process of its own without network, files or
other processes. Rows without tests are kept, without a score.
Guarantee: nothing runs where the kernel cannot lock it up; that stops the run with an explanation. The limit is CPU time,
so that a busy machine changes no verdict; a program that waits is ended after ten times as long.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import polars as pl
from pydantic import Field

import synthgen.refine.jail
from synthgen.errors import UsageError
from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.fields import field_values
from synthgen.refine.filters.text import completion
from synthgen.refine.verdict import Verdicts
from synthgen.types import JSONValue

__all__ = ["CODE_TESTS", "CodeTestsParams", "code_tests"]

_FENCED = re.compile(r"(?ms)^[ \t]*```(?:python|py|python3)?[ \t]*\n(.*?)^[ \t]*```[ \t]*$")
_JAIL = Path(synthgen.refine.jail.__file__)
_ENDED = (-signal.SIGXCPU, -signal.SIGKILL)
Said = tuple[str | None, float | None, str | None]


class CodeTestsParams(Strict):
    """`tests`: the row's field with Python tests: assertions as a text or a list of texts, or, as EvalPlus and HumanEval
    have them, a function `check(candidate)`, called with what the field `entry_point` names.

    `cpu_s` 10 is what data-juicer and open-r1 give a program; `memory_mb` counts address space.
    """

    tests: str = "tests"
    cpu_s: int = Field(default=10, ge=1, le=600)
    memory_mb: int = Field(default=1024, ge=128)


def code_tests(frame: pl.DataFrame, params: CodeTestsParams) -> Verdicts:
    """The code of the completion fails its tests: all Python fences in order, or the whole text without one.

    The score is 1 for a pass and 0 for a failure; `detail` names the exception.

    Raises:
        UsageError: programs cannot be locked up on this machine.
    """
    answers = frame.select(completion()).to_series().to_list()
    tests = [_tests(value) for value in field_values(frame, params.tests)]
    entries = field_values(frame, "entry_point")
    jobs = [
        (
            _code(answer),
            f"{test}\ncheck({entry})" if test and isinstance(entry, str) and entry.isidentifier() else test,
        )
        for answer, test, entry in zip(answers, tests, entries, strict=True)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda job: _judge(job[0], job[1], params), jobs))
    reason, score, detail = zip(*said, strict=True) if said else ((), (), ())
    return Verdicts(
        pl.Series("reason", reason, pl.String),
        pl.Series("score", score, pl.Float64),
        pl.Series("detail", detail, pl.String),
        pl.Series("threshold", [1.0 if why else None for why in reason], pl.Float64),
    )


def _tests(value: JSONValue) -> str | None:
    if isinstance(value, list):
        value = "\n".join(str(line) for line in value)
    return value if isinstance(value, str) and value.strip() else None


def _code(answer: str) -> str:
    blocks = _FENCED.findall(answer)
    return "\n".join(blocks) if blocks else answer


def _judge(code: str, tests: str | None, params: CodeTestsParams) -> Said:
    if tests is None:
        return None, None, None
    if not code.strip():
        return "no_code", 0.0, None
    told = _run(code, tests, params)
    if told == "passed":
        return None, 1.0, None
    return ("tests_timeout" if told == "" else "tests_failed"), 0.0, told or None


def _run(code: str, tests: str, params: CodeTestsParams) -> str:
    """`passed`, the name of an exception, or nothing where the program was ended."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        read_end, write_end = os.pipe()
        limits = (str(write_end), str(params.cpu_s), str(params.memory_mb << 20), folder)
        try:
            with subprocess.Popen(
                [sys.executable, "-I", str(_JAIL), *limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(write_end,),
                start_new_session=True,
                env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            ) as process:
                try:
                    process.communicate(orjson.dumps([code, tests]), timeout=10 * params.cpu_s)
                except subprocess.TimeoutExpired:
                    process.kill()
        finally:
            os.close(write_end)
            with os.fdopen(read_end, "rb") as end:
                told = end.read().decode("utf-8", "replace")
    locked, _, rest = told.partition(" ")
    if locked != "locked":
        raise UsageError(
            f"filter 'code_tests': programs cannot be locked up on this machine ({rest or 'the jail did not start'}); "
            "it needs Linux with seccomp and Landlock (5.13 or later) on x86-64 or ARM64. Leave the filter out"
        )
    return rest or ("" if process.returncode in _ENDED else "ended early")


CODE_TESTS = Plugin("code_tests", CodeTestsParams, code_tests)
