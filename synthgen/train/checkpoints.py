"""What a name of a checkpoint means: a folder, or a model of the hub.

In: what a person wrote, and where relative paths start. Out: the folder's path, or the hub's id. Guarantee: what looks like
a path and is none is an error at once; nothing here opens a connection.
Rejected: leaving that to the hub's client, which tries an id that is none for three quarters of a minute where it is out of
reach, and then says that it could not connect.
"""

import os
from collections.abc import Callable
from pathlib import Path

from synthgen.errors import SourceError

__all__ = ["find_checkpoint"]


def _from_here(named: str) -> Path:
    return Path(named).expanduser()


def find_checkpoint(named: str, path: Callable[[str], Path] = _from_here, *, pinned: bool = False) -> str:
    """What transformers loads it from.

    `org/name` is the hub's where nothing of the name is here; where `org` is a folder, only if it is `pinned`: a revision
    was named, which folders have none of.

    Raises:
        SourceError: there is no such folder, or it is a file.
    """
    place = path(named)
    if place.is_dir():
        return str(place)
    if place.exists():
        raise SourceError(f"{place}: is a file; name the folder of a checkpoint, or a hub id")
    if named.startswith((".", "/", "~")) or named.count("/") > 1 or (os.sep != "/" and os.sep in named):
        raise SourceError(f"there is no folder {place}")
    if "/" in named and not pinned and place.parent.is_dir():
        raise SourceError(
            f"there is no folder {place}; the hub is not asked for {named}, because {place.parent.name} is a folder here"
        )
    return named
