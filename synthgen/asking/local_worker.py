"""The process that holds an embedded model: `python -m synthgen.asking.local_worker`.

In: lines on stdin. Out: lines on stdout; both are described in `local_lines`. Guarantees: questions that arrive
while others run join the running batch; one bad question never ends the others; nothing but replies reaches stdout;
nothing is sent to the library's vendor. It ends when stdin does, so it never outlives its parent, and ignores
interrupts, so that its parent can drain.
Rejected: a thread of the main process. `ContinuousBatchingPipeline.step` of openvino-genai 2026.4 holds the GIL
while it computes (0.04 s for 16 answers at once, up to 0.9 s for a prompt of 8,000 tokens, on two cores): the event
loop and every remote lane on it would stand still that long, over and over.
"""

import os
import signal
import sys
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO

import orjson

from synthgen.asking.local_lines import Ask, Cancel, Failure, Load, Reply, Turn, merge_system
from synthgen.dataclasses import dataclass

# `import openvino` (2026.4) writes a client id under ~/intel and sends an event to Google Analytics, unasked; no
# environment variable turns that off. Without the telemetry package it uses a stub: None means "cannot be imported".
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino_genai as genai  # noqa: E402
from openvino_genai.py_openvino_genai import GenerationHandle  # noqa: E402

__all__ = ["Batch", "main"]

_UNKNOWN_CONTEXT = 100_000  # tokens tried for silent truncation where nothing names the model's length
_AHEAD = 4  # tokens a draft writes before they are checked
_PROBE = "system-role-probe"


@dataclass(frozen=True, slots=True)
class _Running:
    ask: Ask
    handle: GenerationHandle
    input_tokens: int


class Batch:
    """The loaded model and the questions it is answering. Every method may raise RuntimeError: then all is lost."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._running: dict[int, _Running] = {}
        self._refused_schemas: dict[str, str] = {}
        self._open()
        self._takes_system = self._renders_system()
        self._limit = self._longest_prompt()

    def _open(self) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 0  # grows with what runs
        # "accuracy" computes in float32: an answer then hardly depends on what else is in the batch.
        properties: dict[str, object] = {"EXECUTION_MODE_HINT": self._load["execution"].upper()}
        if (draft := self._load["draft"]) is not None:
            properties["draft_model"] = genai.draft_model(draft, self._load["device"])
        self._pipeline = genai.ContinuousBatchingPipeline(
            self._load["model"], scheduler, self._load["device"], properties
        )
        self._tokenizer = self._pipeline.get_tokenizer()

    def _renders_system(self) -> bool:
        """Whether the chat template knows the system role. Some raise on it, some drop its text."""
        user = Turn(role="user", content="hello")
        self._render([user])  # raises where there is no chat template at all
        try:
            return _PROBE in self._render([Turn(role="system", content=_PROBE), user])
        except RuntimeError:
            return False

    def _longest_prompt(self) -> int:
        """Prompts of this many tokens or more are refused: the model cannot take them, or the tokenizer cuts them.

        Tokenizers built from GGUF cut at 8,192 tokens without a word, whatever the model takes.
        """
        context = self._load["context"]
        words = context or _UNKNOWN_CONTEXT
        once, twice = (self._tokenize("a " * n).input_ids.shape[1] for n in (words + 1, 2 * words + 2))
        cut = once if once == twice else None
        return min((limit for limit in (context, cut) if limit is not None), default=sys.maxsize)

    def _render(self, turns: list[Turn]) -> str:
        return self._tokenizer.apply_chat_template([{**turn} for turn in turns], add_generation_prompt=True)

    def _tokenize(self, text: str) -> genai.TokenizedInputs:
        # The template has written the special tokens already.
        return self._tokenizer.encode(text, add_special_tokens=False)

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return self._pipeline.has_non_finished_requests()

    def add(self, ask: Ask) -> list[Reply]:
        """Let a question join; a list of what failed or ended meanwhile."""
        schema = ask["json_schema"]
        if schema in self._refused_schemas:
            return [_failure(ask, "validation", self._refused_schemas[schema])]
        try:
            failed = self._join(ask)
        except (RuntimeError, TypeError, ValueError) as error:  # a value the library refuses
            return [_failure(ask, "validation", _short(error))]
        if failed is not None:
            return [failed]
        return [] if schema is None else self._step_with_schema(ask, schema)

    def _join(self, ask: Ask) -> Reply | None:
        turns = ask["turns"] if self._takes_system else merge_system(ask["turns"])
        ids = self._tokenize(self._render(turns)).input_ids
        tokens = ids.shape[1]
        if tokens >= self._limit:
            return _failure(
                ask, "context", f"the prompt takes {tokens} tokens or more, the model {self._limit}"
            )
        config = self._pipeline.get_config()
        for name, value in ask["settings"].items():
            setattr(config, name, set(value) if isinstance(value, list) else value)
        if self._load["draft"] is not None:
            config.num_assistant_tokens = _AHEAD
        room = self._load["context"]
        config.max_new_tokens = ask["max_tokens"] if room is None else min(ask["max_tokens"], room - tokens)
        if ask["json_schema"] is not None:
            config.structured_output_config = genai.StructuredOutputConfig(json_schema=ask["json_schema"])
        handle = self._pipeline.add_request(ask["id"], ids, config)
        self._running[ask["id"]] = _Running(ask, handle, tokens)
        return None

    def _step_with_schema(self, ask: Ask, schema: str) -> list[Reply]:
        """One step right after a schema joined: a schema the grammar compiler refuses breaks the whole pipeline
        in its first step, so it has to be known whose it was. The pipeline is rebuilt and the others start anew."""
        try:
            return self.step()
        except RuntimeError as error:
            message = f"response schema: {_short(error)}"
        self._refused_schemas[schema] = message
        others = [running.ask for id_, running in self._running.items() if id_ != ask["id"]]
        self._running.clear()
        self._open()
        return [
            _failure(ask, "validation", message),
            *(reply for other in others for reply in self.add(other)),
        ]

    def cancel(self, id_: int) -> None:
        """Forget a question; unknown ids (already answered) are fine."""
        running = self._running.pop(id_, None)
        if running is not None:
            running.handle.cancel()

    def step(self) -> list[Reply]:
        """Draw the next token of everything that runs; the answers that ended with it."""
        self._pipeline.step()
        ended = [
            running
            for running in self._running.values()
            if running.handle.get_status() != genai.GenerationStatus.RUNNING
        ]
        for running in ended:
            del self._running[running.ask["id"]]
        return [self._reply(running) for running in ended]

    def _reply(self, running: _Running) -> Reply:
        if running.handle.get_status() == genai.GenerationStatus.IGNORED:
            return _failure(running.ask, "memory", "no memory left for the attention cache")
        output = running.handle.read_all()[0]
        reasons = genai.GenerationFinishReason
        ids = output.generated_ids
        return Reply(
            id=running.ask["id"],
            text=self._tokenizer.decode(ids, skip_special_tokens=True),
            finish="stop"
            if output.finish_reason == reasons.STOP
            else "length"
            if output.finish_reason == reasons.LENGTH
            else "unknown",
            input_tokens=running.input_tokens,
            output_tokens=len(ids),
        )


def _failure(ask: Ask, failure: Failure, message: str) -> Reply:
    return Reply(id=ask["id"], failure=failure, message=message)


def _short(error: Exception) -> str:
    """The last line of a library's message, which is the one for people; build paths stand before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _read_stdin(inbox: "SimpleQueue[bytes]") -> None:
    for line in sys.stdin.buffer:
        inbox.put(line)
    os._exit(0)  # the parent is gone or wants no more; the main thread may sit in a step


def _lines(inbox: "SimpleQueue[bytes]", batch: Batch) -> Iterator[Ask | Cancel]:
    """What has arrived; waits for the first line only where there is nothing to compute."""
    while not inbox.empty() or not batch.busy:
        yield orjson.loads(inbox.get())


def _serve(inbox: "SimpleQueue[bytes]", out: BinaryIO) -> None:
    def send(*replies: Reply) -> None:
        for reply in replies:
            out.write(orjson.dumps(reply) + b"\n")
        if replies:
            out.flush()

    try:
        batch = Batch(orjson.loads(inbox.get()))
        send(Reply())
        while True:
            for line in _lines(inbox, batch):
                if "cancel" in line:
                    batch.cancel(line["cancel"])
                else:
                    send(*batch.add(line))
            send(*batch.step())
    except Exception as error:  # boundary: whatever ends this process is told to the parent
        send(Reply(fatal=_short(error)))
        raise


def main() -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints must not look like a reply
    inbox: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_read_stdin, args=(inbox,), daemon=True).start()
    _serve(inbox, out)


if __name__ == "__main__":
    main()
