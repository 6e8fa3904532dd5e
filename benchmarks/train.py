"""Tokens a second of a training on the CPU: ours beside TRL's own `SFTTrainer`, and packed beside unpacked.

    python -m benchmarks.train [--rounds 5] [--steps 6] [--width 256] [--layers 6] [--vocabulary 8192]

Model: a Llama of random weights, the same ones for everybody. Rows: tickets as in the learning tests; for packing, short
conversations of uneven length. Same rows in the same order, same batch, loss on the assistant's words, float32, AdamW. TRL is used as its
documentation says (`messages`, `assistant_only_loss`, a template with generation marks), and does its own tokenising and
masking. The clock runs from the end of the first step to the end of the last, without what comes before (loading,
tokenising) and after (saving). In turns; the median of the rounds' ratios. Tokens are those the model reads, padding not.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
from datasets import disable_progress_bars
from datasets.arrow_dataset import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from synthgen.train.audit import audit
from synthgen.train.config import DataConfig, StudentConfig
from synthgen.train.conversation import Conversation
from synthgen.train.engine import train_model
from synthgen.train.examples import Example
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.packing import pack
from synthgen.train.template import chat_format
from synthgen.types import Message
from tests.chat_templates import tokenizer
from tests.tickets import TRAINING, tickets
from tests.tiny_models import tiny_llama

Turns = list[dict[str, str]]
RATE = 1e-4
PACKED_TOKENS, PACKED_BATCH = 512, 2


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for everybody."""

    width: int
    layers: int
    vocabulary: int
    steps: int
    batch: int

    def model(self) -> LlamaForCausalLM:
        return tiny_llama(
            self.vocabulary,
            hidden_size=self.width,
            intermediate_size=3 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 64,
            num_key_value_heads=self.width // 64,
            max_position_embeddings=2048,
        )


class Clock:
    """Seconds between the ends of the first and the last step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, step: object = None) -> None:
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        return self.ends[-1] - self.ends[0]


class Listener(TrainerCallback):  # type: ignore[misc]  # the libraries are not followed by mypy
    """The clock, for TRL: it looks when a step is logged, as ours does."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_log(
        self, args: object, state: object, control: object, logs: dict[str, float], **rest: object
    ) -> None:
        if "loss" in logs:
            self.clock()


def ticket_rows(count: int) -> list[Turns]:
    return [
        [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        for row in tickets(TRAINING, count)
    ]


def short_rows(count: int) -> list[Turns]:
    """Questions and answers of a few words to a few sentences, as chats have them: most are short, some are not."""
    draw = random.Random(0)
    words = ("the", "tide", "follows", "moon", "and", "every", "day", "it", "is", "a", "little", "later")

    def said(most: int) -> str:
        return " ".join(draw.choice(words) for _ in range(min(1 + int(draw.expovariate(4 / most)), most)))

    return [
        [{"role": "user", "content": said(40)}, {"role": "assistant", "content": said(60)}]
        for _ in range(count)
    ]


def examples(rows: Sequence[Turns], words: PreTrainedTokenizerBase) -> Sequence[Example]:
    conversations = [
        Conversation(
            (Message("user", turns[0]["content"]), Message("assistant", turns[1]["content"])), (True, True)
        )
        for turns in rows
    ]
    return audit(conversations, chat_format(words, None), DataConfig(), context=2048).examples


def ours(setting: Setting, groups: Sequence[Sequence[Example]], *, packed: bool) -> float:
    """Seconds."""
    clock = Clock()
    config = StudentConfig.model_validate(
        {
            "name": "ours",
            "base": "none",
            "data": {"packing": packed},
            "steps": {
                "max_steps": setting.steps,
                "batch_size": setting.batch,
                "learning_rate": RATE,
                "warmup": 0,
            },
            "hardware": {"device": "cpu"},
            "evaluation": {"every": setting.steps + 1},
        }
    )
    with tempfile.TemporaryDirectory() as work:
        train_model(
            setting.model(),
            tokenizer("chatml"),
            groups,
            [],
            Distillation(LossConfig()),
            config,
            Path(work),
            pad_id=2,
            progress=clock,
        )
    return clock.seconds


def trls(setting: Setting, rows: Sequence[Turns]) -> float:
    """Seconds of `SFTTrainer` as it is."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = SFTConfig(
            output_dir=work,
            max_steps=setting.steps,
            per_device_train_batch_size=setting.batch,
            learning_rate=RATE,
            lr_scheduler_type="cosine",
            max_length=None,
            assistant_only_loss=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            log_level="error",
            seed=0,
            data_seed=0,
        )
        trainer = SFTTrainer(
            model=setting.model(),
            args=arguments,
            train_dataset=Dataset.from_list([{"messages": turns} for turns in rows]),
            processing_class=tokenizer("chatml"),
            callbacks=[Listener(clock)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.seconds


def beside_trl(setting: Setting, rounds: int) -> dict[str, float]:
    rows = ticket_rows(setting.steps * setting.batch)
    groups = [[example] for example in examples(rows, tokenizer("chatml"))]
    tokens = sum(len(group[0]) for group in groups) * (setting.steps - 1) / setting.steps
    speeds: dict[str, list[float]] = {"ours": [], "trl": []}
    for round_ in range(rounds):
        turns: list[tuple[str, Callable[[], float]]] = [
            ("ours", lambda: ours(setting, groups, packed=False)),
            ("trl", lambda: trls(setting, rows)),
        ]
        for name, run in turns if round_ % 2 else turns[::-1]:
            speeds[name].append(tokens / run())
    return _told(speeds, "ours", "trl")


def packed_beside_unpacked(setting: Setting, rounds: int) -> dict[str, float]:
    rows = short_rows(2 * setting.steps * setting.batch)
    made = examples(rows, tokenizer("chatml"))
    apart = [[example] for example in made]
    groups = [[made[at] for at in group] for group in pack(list(map(len, made)), PACKED_TOKENS)]
    speeds: dict[str, list[float]] = {"packed": [], "unpacked": []}
    steps = {"packed": len(groups) // PACKED_BATCH, "unpacked": len(apart) // setting.batch}
    for round_ in range(rounds):
        for name in ("packed", "unpacked") if round_ % 2 else ("unpacked", "packed"):
            packed = name == "packed"
            batch = PACKED_BATCH if packed else setting.batch
            here = replace(setting, steps=steps[name], batch=batch)
            tokens = sum(map(len, made)) * (here.steps - 1) / here.steps  # a pass over all rows
            speeds[name].append(tokens / ours(here, groups if packed else apart, packed=packed))
    return _told(speeds, "packed", "unpacked")


def _told(speeds: dict[str, list[float]], one: str, other: str) -> dict[str, float]:
    ratios = [a / b for a, b in zip(speeds[one], speeds[other], strict=True)]
    return {
        **{f"{name}_tokens_per_s": round(statistics.median(values), 1) for name, values in speeds.items()},
        f"{one}_over_{other}": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=8192)
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()  # of datasets
    setting = Setting(given.width, given.layers, given.vocabulary, given.steps, given.batch)
    parameters = sum(weight.numel() for weight in setting.model().parameters())
    found = {
        "parameters": parameters,
        "beside_trl": beside_trl(setting, given.rounds),
        "packing": packed_beside_unpacked(setting, given.rounds),
    }
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
