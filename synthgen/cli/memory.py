"""What the C library keeps of freed memory, in a command that runs for hours.

In: nothing. Out: nothing. Effect, with glibc: one arena instead of one a thread, and large blocks go back to the system
when they are freed; the settings hold for the process, so only the command makes them, never the library. A user's own
setting (`MALLOC_ARENA_MAX`) stands. Elsewhere nothing happens. Seen: benchmarks/README.md.
Source: mallopt(3); by default the threshold grows with every large block that is freed.
"""

import os
import sys

__all__ = ["give_back_memory"]

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # malloc.h
_LARGE_BYTES = 2**20


def give_back_memory() -> None:
    """Call before threads are started."""
    if not sys.platform.startswith("linux") or "MALLOC_ARENA_MAX" in os.environ:
        return
    import ctypes

    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    set_option(_ARENA_MAX, 1)
    set_option(_MMAP_THRESHOLD, _LARGE_BYTES)
