"""Our `dataclass` differs from the standard library's in when methods are made, and in nothing a user can see."""

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field, replace
from typing import ClassVar, Generic, TypeVar

import pytest

from synthgen.dataclasses import dataclass, inner

T = TypeVar("T")


def written(dataclass: Callable[..., Callable[[type], type]]) -> dict[str, type]:
    """The same classes by either decorator."""

    @dataclass(frozen=True, slots=True)
    class Frozen:
        """Has everything."""

        name: str
        size: int = 3
        tags: list[str] = field(default_factory=list)
        hidden: str = field(default="h", repr=False)
        aside: int = field(default=0, compare=False)
        half: float = field(init=False)
        seen: bool = field(init=False, default=False)
        at: dict[str, int] = field(init=False, default_factory=dict)
        last: int = field(default=1, kw_only=True)
        must: int = field(kw_only=True)
        kind: ClassVar[str] = "k"

        def __post_init__(self) -> None:
            object.__setattr__(self, "half", self.size / 2)

    @dataclass(slots=True)
    class Mutable:
        name: str
        tags: list[str] = field(default_factory=list)

    @dataclass(slots=True, eq=False)
    class Identity:
        name: str

    @dataclass(frozen=True, slots=True)
    class Own:
        name: str

        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "own"

    @dataclass(frozen=True, slots=True)
    class Typed(Generic[T]):
        value: T

    @dataclass(frozen=True, slots=True)
    class Empty:
        pass

    return {one.__name__: one for one in (Frozen, Mutable, Identity, Own, Typed, Empty)}


OURS, THEIRS = written(dataclass), written(dataclasses.dataclass)  # type: ignore[arg-type]
GIVEN: dict[str, tuple[tuple[object, ...], dict[str, object]]] = {
    "Frozen": (("a", 4), {"must": 5, "tags": ["t"]}),
    "Mutable": (("a",), {}),
    "Identity": (("a",), {}),
    "Own": (("a",), {}),
    "Typed": (([1],), {}),
    "Empty": ((), {}),
}


def both(name: str) -> list[object]:
    """An instance by each decorator."""
    args, named = GIVEN[name]
    return [classes[name](*args, **named) for classes in (OURS, THEIRS)]


def told(call: Callable[[], object]) -> str:
    """What a call returns or raises, in words."""
    try:
        return repr(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def stripped(text: str) -> str:
    """Without what tells the two decorators apart."""
    return text.replace("written.<locals>.", "")


@pytest.mark.parametrize("name", GIVEN)
def test_a_class_looks_as_the_standard_librarys(name: str) -> None:
    ours, theirs = OURS[name], THEIRS[name]

    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
    assert [repr(one) for one in dataclasses.fields(ours)] == [
        repr(one) for one in dataclasses.fields(theirs)
    ]
    assert repr(ours.__dataclass_params__) == repr(theirs.__dataclass_params__)  # type: ignore[attr-defined]
    assert ours.__match_args__ == theirs.__match_args__  # type: ignore[attr-defined]
    assert ours.__slots__ == theirs.__slots__  # type: ignore[attr-defined]
    assert (ours.__hash__ is None) == (theirs.__hash__ is None)


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize(
    "use",
    [
        repr,
        lambda one: one == copy.copy(one),
        lambda one: one == one,
        lambda one: one != object(),
        dataclasses.asdict,
        copy.deepcopy,
        lambda one: [setattr(one, a.name, "b") for a in dataclasses.fields(one)],  # type: ignore[arg-type]
        lambda one: [delattr(one, a.name) for a in dataclasses.fields(one)],  # type: ignore[arg-type]
        lambda one: isinstance(hash(one), int),
        lambda one: type(one)(),
        lambda one: type(one)("a", "b", "c", "d", "e", "f", "g"),
        lambda one: type(one)(nobody=1),
    ],
    ids=lambda use: None,
)
def test_an_instance_does_as_the_standard_librarys(name: str, use: Callable[[object], object]) -> None:
    ours, theirs = (stripped(told(lambda one=one: use(one))) for one in both(name))  # type: ignore[misc]

    assert ours == theirs


def test_it_is_replaced() -> None:
    first = OURS["Frozen"]("a", must=1)

    assert replace(first, size=8).half == 4  # type: ignore[type-var, attr-defined]


@dataclass(frozen=True, slots=True)
class Sent:
    name: str
    size: int = 3
    half: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "half", self.size / 2)


def test_it_is_pickled() -> None:
    assert pickle.loads(pickle.dumps(Sent("a", 5))) == Sent("a", 5)


@inner(frozen=True, slots=True)
class Kept:
    name: str
    size: int = 3


def test_an_inner_one_is_a_value_that_lets_itself_be_set() -> None:
    one = Kept("a")

    assert (repr(one), one == Kept("a", 3), one == Kept("b"), len({one, Kept("a")})) == (
        "Kept(name='a', size=3)",
        True,
        False,
        1,
    )
    assert (replace(one, size=4), pickle.loads(pickle.dumps(one)), hasattr(one, "__dict__")) == (
        Kept("a", 4),
        one,
        False,
    )
    name = "size"
    setattr(one, name, 5)
    assert one == Kept("a", 5)


def test_one_that_compares_nan_is_equal_to_itself() -> None:
    nan = float("nan")
    ours, theirs = (classes["Typed"] for classes in (OURS, THEIRS))

    assert (ours(nan) == ours(nan)) is (theirs(nan) == theirs(nan)) is True


def test_values_of_unequal_classes_differ() -> None:
    @dataclass(frozen=True, slots=True)
    class Other:
        name: str
        size: int = 3

    assert Sent("a") != Other("a")


def test_a_name_that_is_no_field_is_refused_as_well() -> None:
    """The standard library's raises a `TypeError` about `super` there."""
    with pytest.raises(FrozenInstanceError):
        Sent("a").other = "b"  # type: ignore[attr-defined]


def test_a_subclass_is_the_standard_librarys() -> None:
    @dataclass(frozen=True, slots=True)
    class More(Sent):
        extra: str = "e"

    assert repr(More("a")).endswith("More(name='a', size=3, half=1.5, extra='e')")


def test_a_plain_subclass_has_its_fields_too() -> None:
    class Named(Sent):
        pass

    made = Named("a", size=4)

    assert (type(made), made.name, made.size, made.half) == (Named, "a", 4, 2)


def test_loading_a_class_compiles_none_of_its_methods() -> None:
    code = (
        "import builtins; from synthgen.dataclasses import dataclass; calls = []; plain = exec\n"
        "builtins.exec = lambda *a: (calls.append(a), plain(*a))\n"
        "@dataclass(frozen=True, slots=True)\nclass Late:\n    name: str\n"
        "print(len(calls)); Late('a'); Late('b'); print(len(calls))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["0", "1"]
