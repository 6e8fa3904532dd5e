"""A program's tests, in whatever form they come: run inside `jail.py`, which loads this file before it locks itself.

In: the program's blocks, its tests, what the tests call it by. Out: one of

    passed          something was asserted, and held
    failed NAME     the exception, of the program or of its tests; `output` where an answer of a case is another
    invalid WHY     the tests say nothing about any program: nothing in them runs, nothing is asserted, or they cannot run

Tests are a text (assertions; `check(candidate)`; functions `test_*`; classes of unittest or pytest) or cases
`{"inputs": [...], "outputs": [...]}` for a function, or without one for a program that reads and prints.
Guarantee: `passed` only where a statement that can fail was reached from what ran. It imports nothing of synthgen.
Rejected: pytest itself (not there for most users, and 0.3 s a program); tests with fixtures are invalid, never passed.
"""

import ast
import io
import math
import os
import sys
import types
from collections.abc import Callable, Iterator

__all__ = ["run"]

Space = dict[str, object]
_BY_ITSELF = ("main", "unittest.main", "pytest.main")


class _Invalid(Exception):
    """The tests prove nothing."""


class _Differs(Exception):
    """An answer is not the one of the case."""


def run(blocks: list[str], tests: object, entry: str | None) -> str:
    """What became of the program; see the module."""
    try:
        if isinstance(tests, str):
            _run_text(blocks, _Tests(tests), entry)
        else:
            _run_cases(blocks, tests, entry)  # type: ignore[arg-type]  # as the filter made them
    except _Invalid as why:
        return f"invalid {why}"
    except _Differs:
        return "failed output"
    except BaseException as error:  # SystemExit is no pass either
        return f"failed {type(error).__name__}"
    return "passed"


def _space(blocks: list[str], name: str = "answer") -> Space:
    """What the program defines. Of several blocks one that raises counts as not written: usage, output, a sketch."""
    space: Space = {"__name__": name}
    first: BaseException | None = None
    done = 0
    for block in blocks:
        before = dict(space)
        try:
            exec(compile(block, "answer.py", "exec"), space)
            done += 1
        except BaseException as error:
            first = first or error
            space.clear()
            space.update(before)
    if first is not None and not done:
        raise first
    return space


class _Tests:
    """A text of tests: what runs by itself, and what has to be called."""

    def __init__(self, text: str) -> None:
        try:
            tree = ast.parse(text, "tests.py")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise _Invalid(f"the tests are no Python: {type(error).__name__}") from error
        tree.body = [node for node in _top(tree.body) if not _starts_a_runner(node)]
        self.tree = tree
        self.defined = {
            node.name: node
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }
        loose = [node for node in tree.body if node not in self.defined.values()]
        said = {name for node in loose for name in _names(node)}
        self.called = [
            name
            for name, node in self.defined.items()
            if _is_test(node) and (isinstance(node, ast.ClassDef) or not (name in said or self._helps(node)))
        ]
        if not any(map(_can_fail, self._reached([*loose, *(self.defined[name] for name in self.called)]))):
            raise _Invalid("nothing that runs in the tests asserts anything")

    def _helps(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        """Whether it takes arguments that another definition gives it."""
        others = (other for other in self.defined.values() if other is not node)
        return len(node.args.args) > len(node.args.defaults) and any(node.name in _names(o) for o in others)

    def _reached(self, nodes: list[ast.stmt]) -> list[ast.stmt]:
        """These statements and every definition they lead to."""
        reached = list(nodes)
        for node in reached:
            reached += [
                self.defined[name]
                for name in dict.fromkeys(_names(node))
                if name in self.defined and self.defined[name] not in reached
            ]
        return reached


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, with those that would run only where it is the program."""
    for node in body:
        if isinstance(node, ast.If) and "__name__" in _names(node.test):
            yield from node.body
        else:
            yield node


def _starts_a_runner(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) in _BY_ITSELF
    )


def _names(node: ast.AST) -> Iterator[str]:
    return (part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def _is_test(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return any(_is_test(part) for part in node.body if not isinstance(part, ast.ClassDef))
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
        node.name == "check" or node.name.startswith("test")
    )


def _can_fail(node: ast.stmt) -> bool:
    """Whether it holds an `assert`, a `raise`, or a call such as `self.assertEqual` or `pytest.fail`."""
    for part in ast.walk(node):
        if isinstance(part, ast.Assert | ast.Raise):
            return True
        if isinstance(part, ast.Call):
            name = ast.unparse(part.func).rpartition(".")[2].lower()
            if "assert" in name or name in ("fail", "raises", "exit", "_exit"):
                return True
    return False


def _run_text(blocks: list[str], tests: _Tests, entry: str | None) -> None:
    space = _space(blocks)
    # What the tests of some sets import: `from solution import add`.
    solution = types.ModuleType("solution")
    solution.__dict__.update(space)
    sys.modules["solution"] = solution
    try:
        exec(compile(tests.tree, "tests.py", "exec"), space)
    except ModuleNotFoundError as error:
        raise _Invalid(f"the tests need the module {error.name}") from error
    for name in tests.called:
        _call(name, space[name], space, entry)


def _call(name: str, target: object, space: Space, entry: str | None) -> None:
    if isinstance(target, type):
        _run_class(target)
    elif name == "check" and _needs(target) == 1:
        if entry is None:
            raise _Invalid("check(candidate) needs the name of what it checks, in the field `entry_point`")
        target(eval(entry, space))  # type: ignore[operator]  # a function of the tests
    else:
        _run_function(name, target)


def _run_class(target: type) -> None:
    import unittest

    if issubclass(target, unittest.TestCase):
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(target)
        result = unittest.TextTestRunner(io.StringIO(), failfast=True).run(suite)
        if result.failures or result.unexpectedSuccesses:
            raise AssertionError
        if result.errors:
            raise type(result.errors[0][1].strip().rpartition("\n")[2].partition(":")[0], (Exception,), {})
        if result.testsRun == len(result.skipped):
            raise _Invalid(f"{target.__name__} has no test that runs")
        return
    names = [name for name in dir(target) if name.startswith("test")]
    if not names:
        raise _Invalid(f"{target.__name__} has no test that runs")
    for name in names:
        case = target()
        if hasattr(case, "setup_method"):
            case.setup_method()
        _run_function(f"{target.__name__}.{name}", getattr(case, name))


def _run_function(name: str, function: object) -> None:
    if _needs(function):
        raise _Invalid(f"{name} takes arguments, which only a test runner could give it")
    said = function()  # type: ignore[operator]  # a function of the tests
    if hasattr(said, "__await__"):
        said.close()
        raise _Invalid(f"{name} is asynchronous")


def _needs(function: object) -> int:
    """How many arguments it cannot do without."""
    import inspect

    return sum(
        parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in inspect.signature(function).parameters.values()  # type: ignore[arg-type]  # a function
    )


def _run_cases(blocks: list[str], cases: dict[str, object], entry: str | None) -> None:
    inputs, outputs = cases["inputs"], cases["outputs"]
    assert isinstance(inputs, list)
    assert isinstance(outputs, list)
    name = cases.get("fn_name") or entry
    if isinstance(name, str):
        _call_with(_found(name, _space(blocks)), inputs, outputs)
        return
    # Blocks of a program that reads and prints belong together, or one of them is the program.
    whole = "\n".join(blocks)
    problem: BaseException | None = None
    for program in dict.fromkeys([whole, *blocks]):
        try:
            for given, wanted in zip(inputs, outputs, strict=True):
                if not _same_output(_printed(program, _lines(given)), _lines(wanted)):
                    raise _Differs
        except BaseException as error:
            problem = problem or error
        else:
            return
    raise problem or _Differs()


def _found(name: str, space: Space) -> Callable[..., object]:
    """The function of that name, or the method of a class `Solution`."""
    solution = space.get("Solution")
    if name not in space and name.isidentifier() and isinstance(solution, type):
        return getattr(solution(), name)  # type: ignore[no-any-return]  # a method of the program
    return eval(name, space)  # type: ignore[no-any-return]  # a function of the program


def _call_with(function: Callable[..., object], inputs: list[object], outputs: list[object]) -> None:
    answers = [
        function(*given)
        if isinstance(given, list)
        else function(**given)
        if isinstance(given, dict)
        else function(given)
        for given in inputs
    ]
    if _equal(answers, outputs):
        return
    # APPS wraps every answer in a list of its own.
    if not (
        all(isinstance(wanted, list) and len(wanted) == 1 for wanted in outputs)
        and _equal(answers, [wanted[0] for wanted in outputs])  # type: ignore[index]  # lists
    ):
        raise _Differs


def _equal(one: object, other: object) -> bool:
    """As JSON has them: a tuple is a list, keys are texts, numbers with a point are nearly equal."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        said = {str(key): value for key, value in one.items()}
        return said.keys() == other.keys() and all(_equal(said[key], other[key]) for key in said)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)  # type: ignore[arg-type]  # numbers
    return one == other


def _lines(value: object) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _printed(program: str, given: str) -> str:
    """What the program prints when it reads this. Files take the places of its standard input and output, for programs that
    open those by number."""
    for number, name, text in ((0, "given", given), (1, "printed", "")):
        with open(name, "w", encoding="utf-8") as file:  # noqa: PTH123  # pathlib would be imported for this alone
            file.write(text)
        place = os.open(name, os.O_RDWR)
        if place != number:  # a program may have closed it
            os.dup2(place, number)
            os.close(place)
    with (
        open(0, encoding="utf-8", closefd=False) as sys.stdin,
        open(1, "w", encoding="utf-8", closefd=False) as sys.stdout,
    ):
        try:
            exec(compile(program, "answer.py", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            if end.code:
                raise
        if "threading" in sys.modules:
            import threading

            for thread in threading.enumerate():
                if thread is not threading.main_thread() and not thread.daemon:
                    thread.join()
    with open("printed", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        return file.read()


def _same_output(said: str, wanted: str) -> bool:
    """Word by word and line by line; white space at the ends does not count, numbers with a point are nearly equal."""
    one, other = ([line.split() for line in text.strip().split("\n")] for text in (said, wanted))
    return len(one) == len(other) and all(
        len(mine) == len(theirs) and all(map(_same_word, mine, theirs))
        for mine, theirs in zip(one, other, strict=True)
    )


def _same_word(said: str, wanted: str) -> bool:
    if said == wanted:
        return True
    try:
        return "." in wanted and math.isclose(float(said), float(wanted), rel_tol=1e-6, abs_tol=1e-6)
    except ValueError:
        return False
