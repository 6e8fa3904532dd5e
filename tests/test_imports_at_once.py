"""httpx is imported in a thread while the loop imports an SDK: why nobody can get half a module.

A module that another thread is importing is waited for (its lock, importlib). Half of one is only seen where two threads
wait for each other: one imports httpx and wants a module that the other one is importing, which wants httpx. So the rule
is that nothing that httpx needs imports httpx; then whoever waits for httpx holds nothing that httpx waits for.
"""

import subprocess
import sys

import pytest

_CIRCLE = """
import sys
before = set(sys.modules)
import httpx
needed = {name.partition(".")[0] for name in set(sys.modules) - before} - {"httpx"} - set(sys.stdlib_module_names)
for name in [name for name in sys.modules if name.partition(".")[0] in {"httpx", *needed}]:
    del sys.modules[name]
for name in needed:
    __import__(name)
print(sorted(needed), "httpx" in sys.modules)
"""
_AT_ONCE = """
import sys, threading
sys.setswitchinterval(1e-6)
barrier, wrong = threading.Barrier(6), []

def server_queue():
    import httpx
    httpx.AsyncClient, httpx.HTTPError, httpx.StreamError

def openai_batches():
    import synthgen.asking.batch.openai_batches
    import openai
    openai.AsyncOpenAI(api_key="unset").chat.completions

def anthropic_batches():
    import synthgen.asking.batch.anthropic_batches
    import anthropic
    anthropic.AsyncAnthropic(api_key="unset").messages

def doctor():
    import synthgen.asking.doctor.control

def run(job):
    try:
        barrier.wait()
        job()
    except BaseException as error:
        wrong.append(repr(error))

jobs = [server_queue, openai_batches, anthropic_batches, doctor, server_queue, doctor]
threads = [threading.Thread(target=run, args=[job], daemon=True) for job in jobs]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
print(wrong, any(thread.is_alive() for thread in threads))
"""


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


def test_nothing_that_httpx_needs_imports_httpx() -> None:
    said = python(_CIRCLE)

    assert said.endswith("] False")
    assert "idna" in said


@pytest.mark.slow
@pytest.mark.parametrize("_time", range(5))
def test_parts_that_import_at_once_all_get_whole_modules(_time: int) -> None:
    assert python(_AT_ONCE) == "[] False"
