"""The embedded teacher, `provider: local`: an open-weight model on this machine, through OpenVINO GenAI.

In: requests. Out: outcomes. Guarantees: nothing is loaded before the first request; requests in flight are computed
as one batch and later ones join it; aliases of one model share it; the event loop only ever hands over a line. An
answer depends on its request alone: sampling is seeded from `Request.key()` (which holds seed, sample and
occurrence), and the same request asked alone gives the same text. In a batch float32 sums may come out in another
order: with `execution: accuracy`, of 16 prompts at once 16 greedy and 15 sampled answers of up to 64 tokens were those
of the prompt asked alone; with `performance`, which computes in the machine's fastest types, 4 and 1.
Defaults where the recipe is silent: 512 new tokens, and the model's own generation settings, which for a GGUF file
means greedy: `samples` above 1 need a `temperature`.
The model lives in a process of its own, for the reason given in `local_worker`; it also means that a crash in native
code or a kill for memory stops this lane, not the run, and that closing frees everything.
Rejected: llama-cpp-python (an 18-minute source build), torch (gigabytes, for the same answers).
"""

import asyncio
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO

import orjson
from pydantic import Field

from synthgen.asking.local_lines import Ask, Cancel, Execution, Load, Reply, Setting, Turn
from synthgen.asking.local_model import DEFAULT_MODEL, PACKAGED, check_model, context_length, model_path
from synthgen.asking.outcome import Answer, LaneStop, Outcome, Retry, RowFailure, Teacher
from synthgen.dataclasses import dataclass
from synthgen.errors import UsageError
from synthgen.plugins import Plugin
from synthgen.recipe.model import Limits, TeacherConfig
from synthgen.types import Completion, Request, Usage

__all__ = ["LOCAL", "LocalTeacher", "LocalTeacherConfig", "connect_local"]

DEFAULT_MAX_TOKENS = 512


class LocalTeacherConfig(TeacherConfig):
    """`model` is a packaged model's name, a .gguf file, or a folder in OpenVINO's format.

    `execution: performance` is about 1.5 times faster and needs about a quarter of the attention cache, but then answers
    depend on what else is in the batch. `draft` is a smaller model with the same tokenizer, a student of this one say (both
    folders): it writes some tokens ahead, which the model checks at once (speculative decoding, Leviathan et al. 2023).
    Greedy answers stay the model's own, so it changes no question's key.
    """

    model: str = Field(default=DEFAULT_MODEL, min_length=1)
    draft: str | None = Field(default=None, min_length=1)
    limits: Limits = Limits(concurrency=16)  # the batch of the model in memory; more only waits inside it
    device: str = Field(default="CPU", min_length=1)
    execution: Execution = "accuracy"
    cache_dir: Path | None = None

    def takes_tools(self) -> bool:
        """No: its templates have no place for them."""
        return False


def connect_local(config: LocalTeacherConfig) -> Teacher:
    """A teacher that loads its model when first asked.

    Raises:
        UsageError: the extra is not installed, or the model is neither a known name nor a usable path.
    """
    if importlib.util.find_spec("openvino_genai") is None:
        raise UsageError("provider `local` needs OpenVINO GenAI: pip install 'synthgen[local]'")
    check_model(config.model)
    if config.draft is not None:
        check_model(config.draft)
        for name in (config.model, config.draft):
            if not Path(name).expanduser().is_dir():
                raise UsageError(
                    f"local model {name}: a model and its draft have to be folders in OpenVINO's format "
                    "(`synthgen train export --as openvino:int8`)"
                )
    return LocalTeacher(config)


class LocalTeacher:
    """One alias of a loaded model."""

    def __init__(self, config: LocalTeacherConfig) -> None:
        self._config = config
        self._engine: _Engine | None = None

    async def answer(self, request: Request, samples: int = 1) -> Outcome:
        """The model's answer, always one; loads the model where no alias has. Cancelling it ends its computation."""
        unsupported = _unsupported(request)
        if unsupported is not None:
            return RowFailure("validation", f"the embedded teacher does not support {unsupported}")
        if self._engine is None:
            self._engine = _borrow(_spec(self._config))
        ticket = self._engine.ask(request)
        try:
            reply = await ticket.future
        except asyncio.CancelledError:
            self._engine.forget(ticket)
            raise
        return reply if isinstance(reply, LaneStop) else _outcome(reply, self._config.model)

    async def close(self) -> None:
        """Give the model back; the last alias ends its process. A later `answer` loads it again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(_give_back, engine)


def _unsupported(request: Request) -> str | None:
    if request.tools is not None:
        return "tools"
    if request.top_logprobs is not None:
        return "logprobs"
    if request.sampling.extra:
        return "sampling.extra: " + ", ".join(sorted(request.sampling.extra))
    if any(message.role == "tool" or message.tool_calls for message in request.messages):
        return "tool messages"
    return None


def _settings(request: Request) -> dict[str, Setting]:
    """The request's sampling as attributes of OpenVINO GenAI's `GenerationConfig`; unset ones stay the model's."""
    sampling = request.sampling
    settings: dict[str, Setting] = {"rng_seed": int(request.key()[:8], 16)}
    if sampling.temperature is not None:
        settings["do_sample"] = sampling.temperature > 0
    if sampling.temperature:
        settings["temperature"] = sampling.temperature
    if sampling.stop:
        settings["stop_strings"] = list(sampling.stop)
    for name in ("top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"):
        value: float | int | None = getattr(sampling, name)
        if value is not None:
            settings[name] = value
    return settings


def _outcome(reply: Reply, model: str) -> Outcome:
    if "failure" in reply:
        if reply["failure"] == "memory":
            return Retry("memory", reply["message"])
        return RowFailure(reply["failure"], reply["message"])
    usage = Usage(input_tokens=reply["input_tokens"], output_tokens=reply["output_tokens"])
    return Answer(
        Completion(text=reply["text"], finish_reason=reply["finish"], usage=usage, served_model=model)
    )


@dataclass(frozen=True, slots=True)
class _Spec:
    """What makes two aliases share one loaded model."""

    model: str
    draft: str | None
    device: str
    execution: Execution
    cache_dir: Path | None


def _spec(config: LocalTeacherConfig) -> _Spec:
    draft = None if config.draft is None else _located(config.draft)
    return _Spec(_located(config.model), draft, config.device, config.execution, config.cache_dir)


def _located(model: str) -> str:
    return model if model in PACKAGED else str(Path(model).expanduser().resolve())


@dataclass(frozen=True, slots=True)
class _Ticket:
    """Somebody waiting for a reply, on their own loop."""

    id: int
    future: asyncio.Future[Reply | LaneStop]

    def settle(self, reply: Reply | LaneStop) -> None:
        """Wake the waiter, from any thread."""
        with suppress(RuntimeError):  # that loop is closed: nobody waits
            self.future.get_loop().call_soon_threadsafe(self._settle_now, reply)

    def _settle_now(self, reply: Reply | LaneStop) -> None:
        if not self.future.done():
            self.future.set_result(reply)


class _Engine:
    """The process of one loaded model, and who waits for what. One thread writes to it, one reads from it."""

    def __init__(self, spec: _Spec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._waiting: dict[int, _Ticket] = {}
        self._asked = 0
        self._stopped: LaneStop | None = None
        self._inbox: SimpleQueue[Ask | Cancel | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._run, name="local-model", daemon=True)
        self._writer.start()

    def ask(self, request: Request) -> _Ticket:
        """Queue a request of the running loop; its future ends with a reply, or with why there will be none."""
        future: asyncio.Future[Reply | LaneStop] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._asked += 1
            ticket = _Ticket(self._asked, future)
            if self._stopped is None:
                self._waiting[ticket.id] = ticket
                self._inbox.put(_ask_line(ticket.id, request))
            else:
                future.set_result(self._stopped)
        return ticket

    def forget(self, ticket: _Ticket) -> None:
        """Nobody waits for this one any more."""
        with self._lock:
            if self._waiting.pop(ticket.id, None) is not None:
                self._inbox.put(Cancel(cancel=ticket.id))

    def close(self) -> None:
        """End the process; blocks until it is gone."""
        self._inbox.put(None)
        self._writer.join()

    def _run(self) -> None:
        """Load the model, then pass on what is asked, until closed."""
        try:
            path = model_path(self._spec.model, self._spec.cache_dir)
            load = Load(
                model=str(path),
                draft=self._spec.draft,
                device=self._spec.device,
                execution=self._spec.execution,
                context=context_length(path),
            )
            with tempfile.TemporaryFile() as noise, _start_worker(noise) as process:
                reader = threading.Thread(
                    target=self._read, args=(process, noise), name="local-model-replies", daemon=True
                )
                reader.start()
                self._write(process, load)
                process.kill()  # it holds nothing worth a farewell
                reader.join()
        except Exception as error:  # boundary: whatever it was, those who wait are told
            self._stop(str(error) or type(error).__name__)

    def _write(self, process: subprocess.Popen[bytes], load: Load) -> None:
        assert process.stdin is not None
        line: Load | Ask | Cancel | None = load
        while line is not None:
            try:
                process.stdin.write(orjson.dumps(line) + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                return  # the reader sees the end and says why
            line = self._inbox.get()
        self._stop("it was closed")

    def _read(self, process: subprocess.Popen[bytes], noise: IO[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith(b"\n"):
                break  # killed while it wrote
            reply: Reply = orjson.loads(line)
            if "fatal" in reply:
                self._stop(reply["fatal"])
            elif "id" in reply:
                with self._lock:
                    ticket = self._waiting.pop(reply["id"], None)
                if ticket is not None:
                    ticket.settle(reply)
        noise.seek(0)
        said = noise.read().decode(errors="replace").split("\n")
        last = next((text.strip() for text in reversed(said) if text.strip()), "it said nothing")
        self._stop(f"its process ended with {process.wait()}: {last}")

    def _stop(self, why: str) -> None:
        """Nothing will be answered any more; the first reason stands."""
        with self._lock:
            if self._stopped is None:
                self._stopped = LaneStop("model", f"local model {self._spec.model}: {why}")
            stopped = self._stopped
            waiting, self._waiting = list(self._waiting.values()), {}
        for ticket in waiting:
            ticket.settle(stopped)


def _ask_line(id_: int, request: Request) -> Ask:
    return Ask(
        id=id_,
        turns=[Turn(role=message.role, content=message.content) for message in request.messages],
        max_tokens=request.sampling.max_tokens or DEFAULT_MAX_TOKENS,
        settings=_settings(request),
        json_schema=request.response_schema,
    )


def _start_worker(noise: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process of this interpreter and this synthgen; files of the working folder cannot shadow its imports.

    Its own session: a signal to the group of the main process must not end answers that are being drained.
    """
    above = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [above, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "synthgen.asking.local_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=noise,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


# A process-wide table, against the rule: two aliases of one model must not hold its weights twice.
_ENGINES: dict[_Spec, tuple[_Engine, int]] = {}
_ENGINES_LOCK = threading.Lock()


def _borrow(spec: _Spec) -> _Engine:
    with _ENGINES_LOCK:
        engine, users = _ENGINES.get(spec) or (_Engine(spec), 0)
        _ENGINES[spec] = (engine, users + 1)
        return engine


def _give_back(engine: _Engine) -> None:
    with _ENGINES_LOCK:
        spec, users = next((s, users) for s, (known, users) in _ENGINES.items() if known is engine)
        if users > 1:
            _ENGINES[spec] = (engine, users - 1)
            return
        del _ENGINES[spec]
    engine.close()


LOCAL: Plugin[Callable[[LocalTeacherConfig], Teacher]] = Plugin(
    "local", params=LocalTeacherConfig, run=connect_local
)
