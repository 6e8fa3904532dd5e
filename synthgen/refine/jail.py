"""Runs one Python program that nobody has read: no network, no other process, no file but its own folder.

Started as a script of its own (`python -I jail.py FD CPU_S MEMORY_BYTES FOLDER`), with the program on stdin as JSON
`[blocks, tests, entry]`. Writes `locked`, then what `trial.py` beside it says of the program, to FD. It imports nothing of
synthgen.

Guarantee, by the kernel: seccomp refuses sockets, new processes, signals, tracing, mounting and changes of owners and
modes; Landlock shows only the interpreter, its packages and the folder, and writes only to the folder; limits bound CPU
seconds, memory and file sizes. Where either cannot be had (not Linux, another processor, an old kernel) nothing runs:
it exits with 97. Before the program starts, a socket is tried and must be refused.
Rejected: containers (a daemon, root, seconds a start), and `unshare` alone (an own network has no routes, but sockets
of the file system, such as a container daemon's, stay in reach). The program shares the interpreter with its
tests: this proves answers, it does not withstand one written to forge a pass.
"""

import ctypes
import json
import os
import platform
import resource
import socket
import struct
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

__all__ = ["main"]

_REFUSED = 97
# Numbers of the kernel's system calls: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
# socket connect sendto sendmsg bind listen; ptrace process_vm_*; kill tkill tgkill pidfd_*; fork vfork clone3 execve*;
# setsid setpgid unshare setns mount bpf perf io_uring keyctl; chmod chown xattr utime mknod; modules reboot
_DENIED = {
    "x86_64": (
        0xC000003E,
        "41 42 44 46 49 50 101 310 311 62 200 234 424 434 438 57 58 59 322 112 109 272 308 165 321 298 425 248 249 250 "
        "90 91 92 93 94 260 268 452 188 189 190 197 198 199 132 235 261 280 133 259 175 313 176 169 161 155 323",
        56,
        435,
    ),
    "aarch64": (
        0xC00000B7,
        "198 203 206 211 200 201 117 270 271 129 130 131 424 434 438 221 281 157 154 97 268 40 280 241 425 217 218 219 "
        "52 53 54 55 452 5 6 7 14 15 16 88 33 105 273 106 142 51 41 282",
        220,
        435,
    ),
}
_ALLOW, _DENY, _NO_SUCH_CALL, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CLONE_THREAD = 0x10000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = (("size", ctypes.c_ushort), ("program", ctypes.c_void_p))


class _Refused(Exception):
    """The kernel gave no lock."""


def _syscall(*arguments: object) -> int:
    result = int(_libc.syscall(*arguments))
    if result < 0:
        raise _Refused(f"system call {arguments[0]}: {os.strerror(ctypes.get_errno())}")
    return result


def _lock_files(folder: str) -> None:
    """Landlock (kernel documentation, userspace-api/landlock): what is not named below cannot be opened."""
    abi = _syscall(444, None, ctypes.c_size_t(0), 1)
    # Rights by version of the interface: 13 in the first, then rename across folders, truncate, device commands.
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    rules = _syscall(444, struct.pack("=Q", handled), ctypes.c_size_t(8), 0)
    readable = _EXECUTE | _READ_FILE | _READ_DIR
    interpreter = (sys.prefix, sys.base_prefix, sys.exec_prefix, "/usr", "/lib", "/lib64")
    for path, rights in (
        *((path, readable) for path in interpreter),
        ("/dev/null", _READ_FILE | _WRITE_FILE),
        ("/dev/urandom", _READ_FILE),
        (folder, handled & ~_EXECUTE),
    ):
        if not os.path.exists(path):  # noqa: PTH110  # pathlib would be imported for this alone
            continue
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _syscall(445, rules, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _Refused("no_new_privs")
    _syscall(446, rules, 0)
    os.close(rules)


def _lock_calls() -> None:
    """A seccomp filter; threads may be made, processes may not."""
    if platform.machine() not in _DENIED or sys.maxsize < 2**32:
        raise _Refused(f"processor {platform.machine()}")
    architecture, denied, clone, clone3 = _DENIED[platform.machine()]
    program = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, 0x40000000),  # x32: other numbers for the same calls
        (_RETURN, 0, 0, _DENY),
        (_EQUAL, 0, 1, clone3),  # its flags lie in memory, out of sight: "no such call" makes libc use clone
        (_RETURN, 0, 0, _NO_SUCH_CALL),
    ]
    for number in map(int, denied.split()):
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _DENY)]
    program += [
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, 16),
        (_BITS, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _DENY),
    ]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    given = _Filter(len(program), ctypes.cast(code, ctypes.c_void_p))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(given), 0, 0) != 0:
        raise _Refused("seccomp")


def _prove() -> None:
    """A socket must be refused now."""
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        try:
            socket.socket(family).close()
        except PermissionError:
            continue
        raise _Refused("sockets can be opened")


def _lock(cpu_s: int, memory_bytes: int, folder: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 24, 1 << 24))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    os.chdir(folder)
    _lock_files(folder)
    _lock_calls()
    _prove()


def main(told: int, cpu_s: int, memory_bytes: int, folder: str) -> None:
    """Lock, run, say how it went."""
    blocks, tests, entry = json.load(sys.stdin)
    # Its folder holds a module `select`, and would hide the interpreter's; once locked, it cannot be read.
    trial = ModuleType("trial")
    SourceFileLoader("trial", os.path.join(os.path.dirname(__file__), "trial.py")).exec_module(trial)  # noqa: PTH118, PTH120
    try:
        _lock(cpu_s, memory_bytes, folder)
    except (_Refused, OSError, ValueError) as error:
        os.write(told, f"refused {error}".encode())
        os._exit(_REFUSED)
    os.write(told, b"locked ")
    said = trial.run(blocks, tests, entry)
    os.write(told, said.encode("utf-8", "replace")[:200])
    os._exit(said != "passed")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
