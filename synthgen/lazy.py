"""Names of a package that load their module when they are first asked for.

In: a package's `__init__` and where each of its names lives. Out: its `__getattr__`. Guarantee: importing the package
loads none of these modules. The same imports stand under `TYPE_CHECKING`, for type checkers; a test holds both equal.
Rejected: importing everything (a run that only asks paid for all that refines and publishes), and importers that name
the module themselves (every one would have to know how a package is cut).
"""

from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazily"]


def lazily(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], object]:
    """The `__getattr__` of a package; `homes`: module of the package -> names that are taken from there."""
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home_of[name]}"), name)

    return get
