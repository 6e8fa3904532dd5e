"""What the verbs of `synthgen train` share: options, the libraries they need, lines for people."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.terminal import safe
from synthgen.errors import UsageError

__all__ = ["AsJson", "Config", "Dataset", "Overrides", "print_refused", "require_libraries", "say"]

_NEEDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Config = Annotated[
    Path | None, typer.Option("-c", "--config", help="The student's YAML file; without it, name --base.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the file: a.b=c. May be repeated.")
]
Dataset = Annotated[
    Path, typer.Argument(help="A run folder, or Parquet/JSONL of conversations.", show_default=False)
]


def require_libraries() -> None:
    """Nothing, if the extra is installed.

    Raises:
        UsageError: it is not.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"training needs {', '.join(missing)}: pip install 'synthgen[train]'")
    from synthgen.train.bars import hide_weight_bars

    hide_weight_bars()


def say(text: str) -> None:
    """A line on stderr."""
    print(safe(text), file=sys.stderr)


def print_refused(refused: Mapping[str, int]) -> None:
    """How many were left out, by reason."""
    for reason, number in sorted(refused.items()):
        print(f"left out: {number:,} ({reason})")
