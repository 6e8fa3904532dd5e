"""Writing a person's decision into `policy.lock.toml`.

In: what was decided, by whom, until when. Out: the entry as TOML text, and the file with the entry behind what it held.
Guarantee: the new file was read back by the loader of the lock before it takes the place of the old one, so that a
wrong entry never gets in; nothing that stood there is touched.
"""

import json
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from synthgen.errors import StorageError
from synthgen.policy.model import Override
from synthgen.policy.overrides import load_lock
from synthgen.policy.registry import Registry

__all__ = ["add_entry", "entry_toml"]


def entry_toml(entry: Override) -> str:
    """The entry as one table of the lock file."""
    values: dict[str, object] = {
        "rules": list(entry.rules),
        "use": entry.use,
        "subject": entry.subject,
        "justification": entry.justification,
        "who": entry.who,
        "date": entry.signed,
        "expires": entry.expires,
        "contract_ref": entry.contract_ref,
        "document_sha256": entry.document_sha256,
    }
    lines = [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
    return f"[[{entry.kind}]]\n" + "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    # JSON strings and lists of strings are TOML, except that DEL has to be written as an escape.
    plain = value.isoformat() if isinstance(value, date) else json.dumps(value, ensure_ascii=False)
    return plain.replace("\x7f", "\\u007f")


def add_entry(lock: Path, entry: Override, *, registry: Registry, uses: Iterable[str], today: date) -> None:
    """Append an entry to the lock file, making the file where there is none.

    Raises:
        RecipeError: the entry, or one that stood there before, is wrong.
        StorageError: the file cannot be written.
    """
    draft = lock.with_name(f".{lock.name}.new")
    try:
        before = lock.read_text(encoding="utf-8") if lock.is_file() else ""
        gap = "\n" if before else ""
        draft.write_text(before.rstrip("\n") + gap * 2 + entry_toml(entry), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{lock}: cannot be written: {error.strerror}") from error
    try:
        load_lock(draft, today, registry=registry, uses=uses)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(lock)
    except OSError as error:
        raise StorageError(f"{lock}: cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
