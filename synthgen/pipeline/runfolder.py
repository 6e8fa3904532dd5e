"""The run folder: where things lie, apart from what `dataset` publishes.

In: a path. Out: the files of "a run is a folder": recipe.yaml (effective, exact), recipes/ (earlier ones), what the
recipe names (recipe_files/, policy.lock.toml, policy.rules/), plan.json, journal/, events.jsonl. Writers use temporary name, fsync, rename.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson

from synthgen.dataset import TEXTS, check_target, write_bytes
from synthgen.errors import StorageError, UsageError
from synthgen.journal import JournalIndex, Reply, read_reply
from synthgen.pipeline.plan import Plan
from synthgen.pipeline.resolve import Resolved
from synthgen.policy import LOCK_NAME, RULES_DIR
from synthgen.recipe.load import LoadedRecipe, load_recipe
from synthgen.recipe.yaml_file import read_yaml
from synthgen.types import JSONValue, digest

__all__ = ["RunFolder"]

# What a run keeps beside its journal and what `dataset` publishes.
WRITTEN = (
    "recipe.yaml",
    "recipes",
    "recipe_files",
    LOCK_NAME,
    RULES_DIR,
    "plan.json",
    "usage.json",
    "events.jsonl",
    "schemas.json",
)
_PART_BYTES = 1 << 20
_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


class RunFolder:
    """Paths of one run, and the small files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / "journal"
        self.recipe = path / "recipe.yaml"
        self.recipe_files = path / "recipe_files"
        self.plan = path / "plan.json"
        self.events = path / "events.jsonl"
        self.doctor = path / "doctor.json"
        self.schemas = path / "schemas.json"
        self.order = self.journal / "rows.bin"
        self.earlier_order = self.journal / "rows.earlier.bin"

    def require_free(self) -> None:
        """Check that a first session here writes over nothing; a folder with a journal is a run, and all of it ours.

        Raises:
            StorageError: names what is in the way.
        """
        if not self.journal.is_dir():
            check_target(self.path, (*WRITTEN, *TEXTS))

    def require(self) -> None:
        """Check that this is a run.

        Raises:
            UsageError: it is not.
        """
        if not self.recipe.is_file() or not self.journal.is_dir():
            raise UsageError(f"{self.path}: not a run folder (no recipe.yaml and journal/ in it)")

    def load_recipe(self) -> LoadedRecipe:
        """The effective recipe of this run, as it was last generated."""
        self.require()
        return load_recipe(self.recipe)

    def recipe_changed(self, loaded: LoadedRecipe) -> bool:
        """Whether an earlier, different recipe stands here."""
        return self.recipe.is_file() and _stored_digest(self.recipe) != loaded.digest

    def write_recipe(self, loaded: LoadedRecipe) -> None:
        """Store the effective recipe; a different earlier one moves to `recipes/<digest>.yaml`."""
        if self.recipe_changed(loaded):
            earlier = self.path / "recipes" / f"{_stored_digest(self.recipe)}.yaml"
            try:
                earlier.parent.mkdir(exist_ok=True)
                self.recipe.replace(earlier)
            except OSError as error:
                raise StorageError(f"{earlier}: cannot be written: {error.strerror}") from error
        write_bytes(self.recipe, loaded.text.encode())

    def keep_files(self, resolved: Resolved) -> bool:
        """Copy what the recipe leans on, so that this run can be refined again anywhere, with any later version.

        Prompts, chains and the files of chains go to `recipe_files/`, policy lock and rules beside the stored recipe.
        Returns whether one of those in `recipe_files/` differs from the copy of an earlier session.
        """
        changed = False
        for name, source in resolved.named_files().items():
            changed |= self._keep(source, self.recipe_files / name)
        lock = resolved.loaded.base / LOCK_NAME
        if lock.is_file():
            self._keep(lock, self.path / LOCK_NAME)
        else:
            (self.path / LOCK_NAME).unlink(missing_ok=True)
        self._keep_rules(resolved.loaded.base / RULES_DIR)
        return changed

    def _keep_rules(self, rules: Path) -> None:
        """The user's rule files as they are now, and no earlier ones."""
        ours = self.path / RULES_DIR
        if ours.resolve() == rules.resolve():
            return
        names = {path.relative_to(rules) for path in rules.rglob("*.toml")}
        for stale in set(ours.rglob("*.toml")) - {ours / name for name in names}:
            stale.unlink()
        for name in names:
            (ours / name).parent.mkdir(parents=True, exist_ok=True)
            self._keep(rules / name, ours / name)

    @staticmethod
    def _keep(source: Path, copy: Path) -> bool:
        try:
            content = source.read_bytes()
            earlier = copy.read_bytes() if copy.is_file() else None
            copy.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(f"{copy}: cannot be written: {error.strerror}") from error
        if content != earlier:
            write_bytes(copy, content)
        return earlier is not None and content != earlier

    def write_plan(self, plan: Plan) -> None:
        """Store what was promised."""
        write_bytes(self.plan, orjson.dumps(plan.as_json(), option=_PRETTY))

    def begin_order(self) -> None:
        """Set aside the longest plan order of earlier sessions: this one writes its own as it admits rows."""
        try:
            if self.order.is_file() and _size(self.order) >= _size(self.earlier_order):
                self.order.replace(self.earlier_order)
            self.order.write_bytes(b"")
        except OSError as error:
            raise StorageError(f"{self.order}: cannot be written: {error.strerror}") from error

    def note_order(self, keys: bytes) -> None:
        """Append to the plan order: 16-byte keys of the journal's row entries."""
        try:
            with self.order.open("ab") as file:
                file.write(keys)
        except OSError as error:
            raise StorageError(f"{self.order}: cannot be written: {error.strerror}") from error

    def end_order(self, *, whole: bool) -> None:
        """A session ends. If it is not `whole` and got less far on the same way, the order of an earlier one is put back."""
        # A disk that fails is reported where it matters; the next session writes the order anew.
        with suppress(OSError):
            if not whole and self._goes_on():
                self.earlier_order.replace(self.order)
            self.earlier_order.unlink(missing_ok=True)

    def _goes_on(self) -> bool:
        """Whether the earlier order begins with the present one."""
        if not self.earlier_order.is_file():
            return False
        with self.order.open("rb") as ours, self.earlier_order.open("rb") as earlier:
            while part := ours.read(_PART_BYTES):
                if earlier.read(len(part)) != part:
                    return False
        return True

    def write_usage(self, usage: JSONValue) -> None:
        """Store tokens and money of the whole run so far."""
        write_bytes(self.path / "usage.json", orjson.dumps(usage, option=_PRETTY))

    def read_order(self) -> list[str]:
        """Keys of the journal's row entries in plan order, as far as the last session admitted them."""
        raw = self.order.read_bytes() if self.order.is_file() else b""
        return [raw[at : at + 16].hex() for at in range(0, len(raw), 16)]

    @staticmethod
    def reply_of(index: JournalIndex) -> Callable[[str], Reply | None]:
        """Look up replies in a journal."""

        def look_up(key: str) -> Reply | None:
            entry = index.reply(key)
            return None if entry is None else read_reply(entry)

        return look_up


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _stored_digest(recipe: Path) -> str:
    """Digest of a stored recipe's content."""
    return digest(read_yaml(recipe).value)
