"""Dataclasses with slots whose methods are made when they are first called.

In: a class, as for the standard library's `dataclass`, and to type checkers the very same. Out: what that returns, but its
`__init__` is compiled at the first instance and the other methods are shared. A run loads 200 such classes and makes
instances of 60; compiling six methods for each was a fifth of its start. `__init__` puts each field of a frozen class into
its slot, where the standard library's finds the slot by name, through `object.__setattr__`: half the time, and a row
makes 25 objects with 130 fields.
`inner` is `dataclass` for values that no plug-in is handed: of those, only type checkers see that they are frozen.
Rejected: that for all of them, named tuples (equal to any tuple of the same
values), attrs (compiles as well) and msgspec (quickest of all, but no dataclasses: `replace`, `asdict` and orjson refuse
its classes).
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from dataclasses import dataclass
    from dataclasses import dataclass as inner
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, eq=True, **more):
        """The standard library's `dataclass`; what is none with slots, or has further options or bases, is made by it."""
        if cls is None:
            return partial(dataclass, frozen=frozen, slots=slots, eq=eq, **more)
        if not slots or more or any(map(dataclasses.is_dataclass, cls.__bases__)):
            return dataclasses.dataclass(cls, frozen=frozen, slots=slots, eq=eq, **more)
        return _quick(cls, frozen=frozen, eq=eq)

    def inner(*, frozen, slots):
        """See the module."""
        return lambda cls: _quick(cls, frozen=frozen, eq=True, checked=False)


__all__ = ["dataclass", "inner"]


def _quick(cls: type, *, frozen: bool, eq: bool, checked: bool = True) -> type:
    methods: dict[str, object] = {"__repr__": _repr}
    if eq:
        methods |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
    if frozen and checked:
        methods |= {"__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
        methods |= {"__getstate__": _state, "__setstate__": _set_state}
    for name, method in methods.items():
        if cls.__dict__.get(name) is None:  # a class with `__eq__` has None for `__hash__`
            setattr(cls, name, method)
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # else the signature is written there, and for that `__init__` is compiled
    has_init = "__init__" in cls.__dict__
    made: type = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=True)
    if not has_init:
        made.__init__ = _Init(made, frozen=frozen and checked)  # type: ignore[misc]
    for option, value in {"init": not has_init, "repr": True, "eq": eq, "frozen": frozen}.items():
        setattr(made.__dataclass_params__, option, value)  # type: ignore[attr-defined]
    return made


class _Init:
    """`__init__` of a class until somebody asks for it."""

    def __init__(self, cls: type, *, frozen: bool) -> None:
        self.cls, self.frozen = cls, frozen

    def __get__(self, instance: object, owner: type) -> Callable[..., None]:
        made = _init_of(self.cls, frozen=self.frozen)
        self.cls.__init__ = made  # type: ignore[misc]
        return made if instance is None else partial(made, instance)


class _Factory:
    """What signatures show for a default that is made anew for every instance."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def _init_of(cls: type, *, frozen: bool) -> Callable[..., None]:
    takes, named, lines, annotations = list[str](), list[str](), list[str](), dict[str, object]()
    known: dict[str, object] = {"_FACTORY": _FACTORY}
    for one in dataclasses.fields(cls):
        name, value = one.name, one.name
        default = ""
        if one.default_factory is not dataclasses.MISSING:
            known[f"_make_{name}"] = one.default_factory
            default = "_FACTORY"
            value = f"_make_{name}()" if not one.init else f"_make_{name}() if {name} is _FACTORY else {name}"
        elif one.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = one.default
            default = f"_default_{name}"
            value = name if one.init else default
        elif not one.init:
            continue  # `__post_init__` sets it
        if one.init:
            (named if one.kw_only else takes).append(f"{name}={default}" if default else name)
            annotations[name] = one.type
        if frozen:
            known[f"_set_{name}"] = cls.__dict__[name].__set__
            lines.append(f"_set_{name}(self, {value})")
        else:
            lines.append(f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    given = ", ".join(["self", *takes, *(["*", *named] if named else [])])
    exec("\n    ".join([f"def __init__({given}):", *(lines or ["pass"])]), known)
    made = cast(Callable[..., None], known["__init__"])
    made.__annotations__ = annotations | {"return": None}
    made.__module__, made.__qualname__ = cls.__module__, f"{cls.__qualname__}.__init__"
    return made


@cache
def _compared(cls: type) -> Callable[[object], object]:
    """The values of an instance that count for equality."""
    names = [one.name for one in dataclasses.fields(cls) if one.compare]
    get = attrgetter(*names) if names else lambda _: ()
    return get if len(names) != 1 else lambda instance: (get(instance),)


def _eq(self: object, other: object) -> object:
    if type(other) is not type(self):
        return NotImplemented
    get = _compared(self.__class__)  # type: ignore[arg-type]  # an instance's `__hash__` is taken for the class's
    return get(self) == get(other)


def _hash(self: object) -> int:
    return hash(_compared(self.__class__)(self))  # type: ignore[arg-type]


def _repr(self: object) -> str:
    shown = [f"{one.name}={getattr(self, one.name)!r}" for one in dataclasses.fields(self) if one.repr]  # type: ignore[arg-type]
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _refuse_to_set(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: object) -> list[object]:
    return [getattr(self, one.name) for one in dataclasses.fields(self)]  # type: ignore[arg-type]


def _set_state(self: object, state: list[object]) -> None:
    for one, value in zip(dataclasses.fields(self), state, strict=True):  # type: ignore[arg-type]
        object.__setattr__(self, one.name, value)
