"""What a training says of itself: `metrics.jsonl`, and the caller's progress.

In: what TRL's trainer logs. Out: a line for each step and each evaluation; `Progress` for whoever watches. Guarantee: after
a kill the file holds the lines up to the checkpoint that is gone on from, each once; a torn last line is dropped.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from synthgen.dataclasses import dataclass
from synthgen.dataset import write_bytes
from synthgen.types import JSONValue

__all__ = ["MetricsFile", "Progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands; `tokens_per_s` counts every token the model reads, padding not."""

    step: int
    steps: int
    epoch: float
    loss: float | None
    validation_loss: float | None
    tokens_per_s: float
    remaining_s: float


class MetricsFile(TrainerCallback):  # type: ignore[misc]  # the libraries are not followed by mypy
    """Writes the lines, and keeps what the last ones said.

    `step`: training goes on from there; `first`: this process is the one of several that writes.
    """

    def __init__(
        self,
        path: Path,
        step: int,
        steps: int,
        progress: Callable[[Progress], None] | None,
        *,
        first: bool,
    ) -> None:
        self._path, self._begun_at, self._steps, self._progress = path, step, steps, progress
        self._tokens = 0.0
        self._started: float | None = None
        self.loss: float | None = None
        self.validation_loss: float | None = None
        lines = path.read_bytes().splitlines() if path.is_file() else []
        kept = [line for line in lines if _step(line) <= step]
        for line in kept:
            self._note(orjson.loads(line))
        if first:
            write_bytes(path, b"".join(line + b"\n" for line in kept))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, JSONValue] | None = None,
        **rest: object,
    ) -> None:
        """Write the line, tell the caller."""
        if not logs or not state.is_world_process_zero or "train_runtime" in logs:
            return
        self._note(logs)
        with self._path.open("ab") as file:
            file.write(orjson.dumps({"step": state.global_step, **logs}) + b"\n")
        tokens = logs.get("tokens")
        self._tokens += float(tokens) if isinstance(tokens, int | float) else 0.0
        if self._progress is not None and self._started is not None:
            elapsed = max(time.monotonic() - self._started, 1e-9)
            done = max(state.global_step - self._begun_at, 1)
            self._progress(
                Progress(
                    state.global_step,
                    self._steps,
                    float(state.epoch or 0),
                    self.loss,
                    self.validation_loss,
                    self._tokens / elapsed,
                    elapsed / done * (self._steps - state.global_step),
                )
            )

    def _note(self, logs: Mapping[str, JSONValue]) -> None:
        loss, validation = logs.get("loss"), logs.get("eval_loss")
        self.loss = float(loss) if isinstance(loss, int | float) else self.loss
        self.validation_loss = (
            float(validation) if isinstance(validation, int | float) else self.validation_loss
        )


def _step(line: bytes) -> float:
    """Of a line of metrics; a torn last line counts as the future."""
    try:
        return float(orjson.loads(line)["step"])
    except (orjson.JSONDecodeError, KeyError):
        return math.inf
