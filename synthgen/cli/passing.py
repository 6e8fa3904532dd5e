"""What a verb is doing, said while it does it: one line that changes on a terminal, now and then a line anywhere else.

In: texts, each of which makes the earlier ones old. Out: stderr. Elsewhere than on a terminal the first is printed, then
one every few seconds at most, and in the end the last.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from synthgen.cli.terminal import safe

__all__ = ["passing"]

_SAID_EVERY_S = 5.0


@contextmanager
def passing(clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[str], None]]:
    """A way to say what is going on."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            yield lambda text: live.update(Text(safe(text)), refresh=True)
        return
    said_at, unsaid = float("-inf"), ""

    def say(text: str) -> None:
        nonlocal said_at, unsaid
        unsaid = text
        if clock() - said_at >= _SAID_EVERY_S:
            said_at, unsaid = clock(), ""
            print(safe(text), file=sys.stderr, flush=True)

    try:
        yield say
    finally:
        if unsaid:
            print(safe(unsaid), file=sys.stderr)
