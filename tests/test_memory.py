"""What a run does with the memory it no longer needs."""

import os
import platform
import subprocess
import sys

import pytest

# A block that glibc got from the system by itself, and will give back by itself, is marked in its head (malloc.c).
PROBE = """
import ctypes
from synthgen.cli.memory import give_back_memory
give_back_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
library.free(library.malloc(4 << 20))
print(ctypes.c_size_t.from_address(library.malloc(2 << 20) - 8).value & 2)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")
@pytest.mark.parametrize(("setting", "marked"), [({}, "2"), ({"MALLOC_ARENA_MAX": "4"}, "0")])
def test_large_blocks_are_given_back_unless_the_user_has_settings(
    setting: dict[str, str], marked: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    found = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**environment, **setting},
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.strip() == marked
