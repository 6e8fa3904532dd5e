"""Answers that are programs, run against the row's tests.

In: a frame of the view whose rows have a field of tests. Out: verdicts with the reasons `no_code`, `tests_failed`,
`tests_timeout`, and `tests_invalid`, where the tests say nothing of any program: a third outcome, never a pass. Each program runs
in `synthgen/refine/jail.py`, a process of its own without network, files or other processes; `trial.py` runs the tests there. Rows
without tests are kept, without a score.
Guarantee: nothing runs where the kernel cannot lock it up; that stops the run with an explanation. The limit is CPU time,
so that a busy machine changes no verdict; a program that waits is ended after ten times as long.
"""

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, cast

import orjson
import polars as pl
from pydantic import Field

import synthgen.refine.jail
from synthgen.errors import UsageError
from synthgen.plugins import Plugin
from synthgen.refine.filters.code_blocks import python_blocks
from synthgen.refine.filters.fields import field_values
from synthgen.refine.filters.text import completion
from synthgen.refine.needs import NeedsField
from synthgen.refine.verdict import Verdicts
from synthgen.types import JSONValue

__all__ = ["CODE_TESTS", "CodeTestsParams", "code_tests"]

_JAIL = Path(synthgen.refine.jail.__file__)
_ENDED = (-signal.SIGXCPU, -signal.SIGKILL)
_REASONS = {"failed": "tests_failed", "invalid": "tests_invalid", "": "tests_timeout"}
Said = tuple[str | None, float | None, str | None]


class CodeTestsParams(NeedsField):
    """`tests`: the row's field with the tests, a text or a list of texts: assertions, `check(candidate)`, functions `test_*`,
    classes of unittest; or cases, a mapping of `inputs` and `outputs` (`input_output` of APPS), or a list of mappings with
    `input` and `output`, of a function, or of a program that reads and prints. `entry_point`: the field with the name of what
    `check` or the cases call.

    `cpu_s` 10 is what data-juicer and open-r1 give a program; `memory_mb` counts address space.
    """

    needs: ClassVar[str] = "tests"

    tests: str = "tests"
    entry_point: str = "entry_point"
    cpu_s: int = Field(default=10, ge=1, le=600)
    memory_mb: int = Field(default=1024, ge=128)


def code_tests(frame: pl.DataFrame, params: CodeTestsParams) -> Verdicts:
    """The code of the completion fails its tests: its Python fences in order, or the whole text without one.

    The score is 1 for a pass and 0 for anything else; `detail` names the exception, or what is wrong with the tests.

    Raises:
        UsageError: programs cannot be locked up on this machine.
    """
    jobs = zip(
        frame.select(completion()).to_series().to_list(),
        field_values(frame, params.tests),
        field_values(frame, params.entry_point),
        strict=True,
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda job: _judge(job[0], job[1], job[2], params), jobs))
    reason, score, detail = zip(*said, strict=True) if said else ((), (), ())
    return Verdicts(
        pl.Series("reason", reason, pl.String),
        pl.Series("score", score, pl.Float64),
        pl.Series("detail", detail, pl.String),
        pl.Series("threshold", [1.0 if why else None for why in reason], pl.Float64),
    )


def _judge(answer: str, value: JSONValue, entry: JSONValue, params: CodeTestsParams) -> Said:
    tests = _tests(value)
    if tests is None:
        return None, None, None
    if tests == {}:
        return "tests_invalid", 0.0, "neither a text nor cases with inputs and outputs"
    blocks = python_blocks(answer)
    if not blocks:
        return "no_code", 0.0, None
    told = _run([[*blocks], tests, entry if isinstance(entry, str) and entry.strip() else None], params)
    word, _, detail = told.partition(" ")
    if word == "passed":
        return None, 1.0, None
    return _REASONS.get(word, "tests_failed"), 0.0, detail or None


def _tests(value: JSONValue) -> str | dict[str, JSONValue] | None:
    """A text; cases; None where there are no tests; an empty mapping where they are of no known form."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(map(str, value))
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list) and all(isinstance(case, dict) for case in value):
        cases = cast(list[dict[str, JSONValue]], value)
        value = {
            "inputs": [_first(case, "input", "inputs") for case in cases],
            "outputs": [_first(case, "output", "outputs") for case in cases],
        }
    if value is None:
        return None
    if not isinstance(value, dict):
        return {}
    inputs, outputs = _first(value, "inputs", "input"), _first(value, "outputs", "output")
    if not (isinstance(inputs, list) and isinstance(outputs, list) and 0 < len(inputs) == len(outputs)):
        return {}
    if any(item is None for item in outputs):
        return {}
    return {"inputs": inputs, "outputs": outputs, "fn_name": value.get("fn_name")}


def _first(case: dict[str, JSONValue], *names: str) -> JSONValue:
    return next((case[name] for name in names if name in case), None)


def _run(job: list[JSONValue], params: CodeTestsParams) -> str:
    """What `trial.py` says, or nothing where the program was ended."""
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
                    process.communicate(orjson.dumps(job), timeout=10 * params.cpu_s)
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
    return rest or ("" if process.returncode in _ENDED else "failed ended early")


CODE_TESTS = Plugin("code_tests", CodeTestsParams, code_tests, version=2)
