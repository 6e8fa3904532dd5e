"""Programs against tests of every form: what is right passes, what is wrong does not, and tests that prove nothing say so."""

import json
import re

import polars as pl
import pytest

from synthgen.errors import UsageError
from synthgen.refine import view_of
from synthgen.refine.filters import code_tests as module
from synthgen.refine.filters.code_blocks import python_blocks
from synthgen.refine.filters.code_tests import CodeTestsParams, code_tests
from synthgen.refine.trial import run

RIGHT, WRONG = "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"
CHECK = "METADATA = {'author': 'x'}\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n"
PYTEST = "import math\n\ndef test_add():\n    assert add(1, 2) == 3\n"
UNITTEST = (
    "import unittest\n\nclass TestAdd(unittest.TestCase):\n    def test_sum(self):\n"
    "        self.assertEqual(add(1, 2), 3)\n"
)
FORMS: dict[str, tuple[object, str | None]] = {
    "assertions": ("assert add(1, 2) == 3", None),
    "assertions of a named function": ("assert add(1, 2) == 3", "add"),
    "check": (CHECK, "add"),
    "check called by itself": (f"{CHECK}\ncheck(add)", "add"),
    "check called by a test": (f"{CHECK}\ndef test_it():\n    check(add)\n", None),
    "check behind a guard": (f"{CHECK}\nif __name__ == '__main__':\n    check(add)\n", None),
    "pytest": (PYTEST, None),
    "pytest behind a seed": (f"import random\nrandom.seed(0)\n{PYTEST}", None),
    "pytest behind a guard": (f"{PYTEST}\nif __name__ == '__main__':\n    test_add()\n", None),
    "pytest importing": (f"from solution import add\n{PYTEST}", None),
    "pytest class": ("class TestAdd:\n    def test_it(self):\n        assert add(1, 2) == 3\n", None),
    "unittest": (UNITTEST, None),
    "unittest with its runner": (f"{UNITTEST}\nunittest.main()", None),
    "unittest in a suite": (f"{UNITTEST}\nunittest.TextTestRunner().run(unittest.TestSuite([TestAdd('test_sum')]))", None),
    "helper that raises": (
        "def same(a, b):\n    if a != b:\n        raise ValueError\n\ndef check(candidate):\n    same(candidate(1, 2), 3)\n",
        "add",
    ),
    "cases": ({"inputs": [[1, 2], [2, 2]], "outputs": [3, 4], "fn_name": "add"}, None),
    "cases of an entry point": ({"inputs": [[1, 2], {"a": 2, "b": 2}], "outputs": [3, 4]}, "add"),
    "cases as APPS wraps them": ({"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}, None),
}  # fmt: skip


@pytest.mark.parametrize(("tests", "entry"), FORMS.values(), ids=FORMS)
def test_a_right_program_passes_and_a_wrong_one_does_not(tests: object, entry: str | None) -> None:
    assert run([RIGHT], tests, entry) == "passed"
    assert run([WRONG], tests, entry).startswith("failed ")


def test_a_method_of_a_solution_is_called() -> None:
    solution = "class Solution:\n    def add(self, a, b):\n        return (a + b, 0.1 + 0.2)"

    assert run([solution], {"inputs": [[1, 2]], "outputs": [[3, 0.3]], "fn_name": "add"}, None) == "passed"
    assert run([solution], "def check(f):\n    assert f(1, 2)[0] == 3", "Solution().add") == "passed"


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        (CHECK, "needs the name of what it checks"),
        ("def helper():\n    assert add(1, 2) == 3\n", "nothing that runs"),
        ("# no tests yet\nimport math", "nothing that runs"),
        ("print(add(1, 2))", "nothing that runs"),
        ("def test_add():\n    add(1, 2)\n", "nothing that runs"),
        ("def test_add(fixture):\n    assert add(1, 2) == fixture\n", "takes arguments"),
        ("async def test_add():\n    assert add(1, 2) == 3\n", "asynchronous"),
        ("import no_such_module\nassert add(1, 2) == 3", "need the module no_such_module"),
        ("assert add(1, 2) = 3", "are no Python"),
        (
            "import unittest\nclass A(unittest.TestCase):\n    @unittest.skip('')\n    def test_a(self):\n        assert 0\n",
            "no test that runs",
        ),
    ],
)
def test_tests_that_prove_nothing_are_neither_passed_nor_failed(tests: str, said: str) -> None:
    told = run([RIGHT], tests, None)

    assert told.startswith("invalid ")
    assert said in told


@pytest.mark.parametrize(
    "opening", ["```", "```python", "```Python", "```python title=x", "```{.python}", "``` py3", "~~~", "~~~~python", "   ```py"]
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_program_is_found_in_every_fence(opening: str, end: str) -> None:
    sign = re.sub("[^`~]", "", opening)
    lines = ["Here it is:", "", opening, *RIGHT.split("\n"), f"{sign}", "Done."]

    assert python_blocks(end.join(lines)) == [RIGHT]


def test_fences_of_other_languages_are_no_program() -> None:
    answer = f"```bash\npip install x\n```\n```python\n{RIGHT}\n```\n````text\n```python\nno\n```\n````"

    assert python_blocks(answer) == [RIGHT]
    assert python_blocks("```js\nadd(1)\n```") == []


@pytest.mark.parametrize(
    "answer",
    [
        "I would add the two numbers.",
        "42",
        "anything",
        "For example, import duties (of 3 %) are added if needed.\n\n- one\n- two",
        "Let a and b be numbers; then f(a, b) is their sum.",
    ],
)
def test_prose_is_no_code(answer: str) -> None:
    assert python_blocks(answer) == []


@pytest.mark.parametrize(
    "answer", [RIGHT, "add = lambda a, b: a + b", "print(sum(map(int, input().split())))", "import sys\nx: int = 1", "def add(a, b)"]
)  # fmt: skip
def test_code_without_a_fence_is_one_block(answer: str) -> None:
    assert python_blocks(answer) == [answer]


def test_an_example_of_use_does_not_fail_the_program() -> None:
    usage = "print(add(int(input()), 2))"

    assert run([RIGHT, usage], "assert add(1, 2) == 3", None) == "passed"
    assert run([RIGHT, ">>> add(1, 2)\n3"], "assert add(1, 2) == 3", None) == "passed"
    assert run([WRONG, usage], "assert add(1, 2) == 3", None) == "failed AssertionError"


def test_a_block_that_fails_leaves_nothing_behind() -> None:
    assert run([f"{RIGHT}\ninput()", "x = 1"], "assert add(1, 2) == 3", None) == "failed NameError"
    assert run([f"{RIGHT}\nraise KeyError"], "assert add(1, 2) == 3", None) == "failed KeyError"


def judged(*rows: tuple[str, object]) -> list[tuple[str | None, float | None, str | None]]:
    frame = pl.DataFrame(
        [
            {"id": str(place), "completion": said, "fields": json.dumps({"tests": tests})}
            for place, (said, tests) in enumerate(rows)
        ]
    )
    verdicts = code_tests(view_of(frame), CodeTestsParams())
    assert verdicts.score is not None
    assert verdicts.detail is not None
    return list(
        zip(verdicts.reason.to_list(), verdicts.score.to_list(), verdicts.detail.to_list(), strict=True)
    )


def test_a_program_that_reads_and_prints_is_run_for_every_case() -> None:
    cases = {"inputs": ["1 2\n", "2 2\n"], "outputs": ["3\n", ["4"]]}
    listed = [{"input": "1 2", "output": "3"}, {"input": "2 2", "output": "4"}]
    right = "```python\na, b = map(int, input().split())\nprint(a + b)\n```\nOr:\n```python\nprint(sum(map(int, open(0).read().split())))\n```"

    said = judged(
        (right, cases), (right, json.dumps(cases)), (right, listed), ("print(3)", cases)
    )  # fmt: skip

    assert said == [(None, 1.0, None)] * 3 + [("tests_failed", 0.0, "output")]


def test_tests_of_no_known_form_are_said_to_be_so() -> None:
    form = "neither a text nor cases with inputs and outputs"

    said = judged(
        (RIGHT, {"inputs": [1]}), (RIGHT, 3), (RIGHT, {"inputs": [], "outputs": []}), (RIGHT, None), (RIGHT, CHECK)
    )  # fmt: skip

    assert said[:4] == [("tests_invalid", 0.0, form)] * 3 + [(None, None, None)]
    assert said[4][:2] == ("tests_invalid", 0.0)


def test_it_refuses_to_start_where_the_network_cannot_be_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:  # type: ignore[no-untyped-def]  # a folder
    """The jail itself, on a processor whose system calls it does not know."""
    text = module._JAIL.read_text(encoding="utf-8").replace("platform.machine()", "'vax'")
    (tmp_path / "jail.py").write_text(text, encoding="utf-8")
    (tmp_path / "trial.py").write_text("run = None", encoding="utf-8")
    monkeypatch.setattr(module, "_JAIL", tmp_path / "jail.py")

    with pytest.raises(
        UsageError, match=r"cannot be locked up on this machine \(processor vax\).*Leave the filter out"
    ):
        judged((RIGHT, "assert add(1, 2) == 3"))
