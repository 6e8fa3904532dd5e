"""`set_by_slot` changes how fast a dataclass is made and nothing else."""

import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from synthgen.frozen import set_by_slot


@dataclass(frozen=True, slots=True)
class Plain:
    name: str
    size: int = 3
    half: float = field(init=False)
    seen: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "half", self.size / 2)


@set_by_slot
@dataclass(frozen=True, slots=True)
class Quick:
    name: str
    size: int = 3
    half: float = field(init=False)
    seen: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "half", self.size / 2)


def test_it_is_made_as_the_dataclass_says() -> None:
    assert repr(Quick("a", size=4)) == repr(Plain("a", size=4)).replace("Plain", "Quick")
    assert Quick("a") == Quick(name="a", size=3) != Quick("b")
    assert inspect.signature(Quick) == inspect.signature(Plain)


def test_it_stays_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Quick("a").name = "b"  # type: ignore[misc]


def test_it_is_copied_pickled_and_hashed_as_before() -> None:
    assert replace(Quick("a"), size=8).half == 4
    assert pickle.loads(pickle.dumps(Quick("a"))) == Quick("a")
    assert hash(Quick("a")) == hash(Quick("a"))


def test_a_missing_field_is_an_error_that_names_it() -> None:
    with pytest.raises(TypeError, match="'name'"):
        Quick()  # type: ignore[call-arg]


def test_a_default_factory_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Made:
        names: list[str] = field(default_factory=list)

    with pytest.raises(TypeError, match=r"Made\.names"):
        set_by_slot(Made)
