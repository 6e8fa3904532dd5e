"""What is installed: its version, and where its packaged data lies, `prompts/` and `filters/`.

In a wheel they are `synthgen/_data/<kind>`; in a checkout or an editable install they are the top-level folders
beside the package. The wheel's copy is looked for first, so an editable install never reads a stale one.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from synthgen.errors import UsageError

__all__ = ["Kind", "asset_names", "find_asset", "package_version", "suggest"]

Kind = Literal["prompts", "filters"]


def _folder(kind: Kind) -> Path:
    package = Path(__file__).resolve().parent
    packaged = package / "_data" / kind
    return packaged if packaged.is_dir() else package.parent / kind


def asset_names(kind: Kind) -> list[str]:
    """Names of the bundled files of one kind, sorted, without `.yaml`."""
    return sorted(path.stem for path in _folder(kind).glob("*.yaml"))


def find_asset(kind: Kind, name: str, *, beside: Path | None = None) -> Path:
    """Path of a bundled file by name, or of a user's file by path (relative to `beside`, the recipe's folder).

    Anything with a path separator or a `.yaml` ending is a path.

    Raises:
        UsageError: no such file; the message lists near names.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = (beside or Path.cwd()) / name
        if path.is_file():
            return path
        raise UsageError(f"{kind[:-1]} file not found: {path}")
    path = _folder(kind) / f"{name}.yaml"
    if path.is_file():
        return path
    known = asset_names(kind)
    raise UsageError(
        f"no bundled {kind[:-1]} named {name!r}{suggest(name, known)}; bundled: {', '.join(known)}"
    )


def package_version() -> str:
    """Version of the installed package, or of the checkout it runs from."""
    try:
        return version("synthgen")
    except PackageNotFoundError:
        return "0+checkout"


def suggest(word: str, known: list[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known word, or an empty string."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
