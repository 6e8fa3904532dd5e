"""The thread that seals finished segments, one after the other (see `sealing`).

In: numbers of segments nobody writes any more. Out: their sealed form on disk, and in the index. A disk without room for
it ends sealing for the session, never the run.
"""

import queue
import threading
from collections.abc import Iterable

from synthgen.errors import SynthgenError
from synthgen.journal.contents import index_path, raw_path
from synthgen.journal.index import JournalIndex
from synthgen.journal.system import sync_folder

__all__ = ["Sealer"]


class Sealer:
    """Seals segments one after the other in a thread, and has the index use the sealed form."""

    def __init__(self, index: JournalIndex) -> None:
        self._index = index
        self._numbers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._closing = False
        self.problem: str | None = None
        self._thread: threading.Thread | None = None

    def add(self, numbers: Iterable[int]) -> None:
        """Have segments sealed, in ascending order; one that lost its index gets a new one."""
        for number in numbers:
            self._numbers.put(number)
            if self._thread is None:
                self._thread = threading.Thread(target=self._seal_forever, name="sealer", daemon=True)
                self._thread.start()

    def _seal_forever(self) -> None:
        while (number := self._numbers.get()) is not None and not self._closing:
            try:
                self._seal(number)
            except (OSError, SynthgenError) as error:
                # Nothing is lost: the segment stays as it is, and the next session tries again.
                self.problem = f"segment {number} could not be sealed: {error}"
                return

    def _seal(self, number: int) -> None:
        # Arrays and zstd: loaded where there is something to seal.
        from synthgen.journal.sealed import write_index
        from synthgen.journal.sealing import seal

        folder = self._index.folder
        if self._index.is_sealed(number):
            index = self._index.load_sealed(number)
            path = index_path(folder, number)
            new = path.with_name(path.name + ".tmp")
            write_index(new, index)
            new.replace(path)
            raw_path(folder, number).unlink(missing_ok=True)
            sync_folder(folder)
        else:
            self._index.adopt(seal(folder, number, stopped=lambda: self._closing))

    def finish(self) -> None:
        """Wait until all that was added is sealed; nothing can be added any more."""
        if self._thread is not None:
            self._numbers.put(None)
            self._thread.join()

    def close(self) -> None:
        """Stop at once; what is not sealed is left to the next session."""
        self._closing = True
        self.finish()
