"""Tokens a second of a training on the CPU: ours beside TRL's own `SFTTrainer`, and packed beside unpacked.

    python -m benchmarks.train [--rounds 5] [--steps 6] [--width 384] [--layers 6] [--vocabulary 8192]

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
from dataclasses import dataclass
from pathlib import Path

import orjson
from datasets.arrow_dataset import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, TrainerCallback, set_seed
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
    words = "the tide follows the moon and every day it is a little later than it was before".split()

    def said(most: int) -> str:
        return " ".join(draw.choice(words) for _ in range(min(1 + int(draw.expovariate(4 / most)), most)))

    return [
        [{"role": "user", "content": said(40)}, {"role": "assistant", "content": said(60)}]
        for _ in range(count)
    ]


def examples(rows: Sequence[Turns], words: PreTrainedTokenizerBase) -> Sequence[Example]:
    conversations = [
        Conversation(id=f"{at}", row=f"{at}", messages=tuple(turns)) for at, turns in enumerate(rows)
    ]
    return audit(conversations, chat_format(words, None), DataConfig(), context=2048).examples
