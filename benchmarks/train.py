"""How fast a student is trained: tokens a second on the CPU, ours beside plain TRL, and packed beside unpacked.

    python benchmarks/train.py [--rounds 5] [--steps 6] [--threads 1]

One Llama of 9 million weights (eight layers; a fifth of it the vocabulary, as in SmolLM2-135M), the same random weights
each time, in 32 bits; 256 tokenised rows of 8 to 256 tokens, most of them short, the last third of each trained on.
Plain TRL: `SFTTrainer` with its own collator and loss, the same rows, batch, order and optimiser. Packed: sequences of as many
tokens as an unpacked step reads on average, one a step. In turns; the clock runs from the end of the first step to that of
the last, once as wall time and once as CPU time, which other programs of the machine disturb less; padding is no token. Medians of the rounds, and of the ratios within them.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import numpy as np
import orjson
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar as disable_datasets_bar
from tokenizers import Tokenizer, models
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    TrainerCallback,
)
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from synthgen.train.config import StudentConfig
from synthgen.train.engine import train_model
from synthgen.train.examples import Example, Span
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.metrics import Progress
from synthgen.train.packing import pack

VOCABULARY, ROWS, BATCH, RATE = 8192, 256, 8, 1e-4
Moment = tuple[float, float]  # wall and CPU time
WANTED = {"ours / TRL": 0.95, "packed / unpacked": 1.5}


def model() -> LlamaForCausalLM:
    """The same weights each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def tokenizer() -> PreTrainedTokenizerFast:
    """A word for each id; the trainers only ask it for the token that pads."""
    words = {f"w{at}": at for at in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w3")), pad_token="w0", eos_token="w2"
    )


def rows() -> list[Example]:
    """Lengths of a log-normal distribution with the median 40."""
    draw = np.random.default_rng(0)
    made = []
    for length in np.clip(draw.lognormal(np.log(40), 0.8, ROWS), 8, 256).astype(int):
        ids = draw.integers(3, VOCABULARY, length).astype(np.int32)
        made.append(Example(ids, (Span(int(length) - int(length) // 3, int(length), 1),)))
    return made


def now() -> Moment:
    """The time."""
    return time.perf_counter(), time.process_time()


def rates(tokens: float, start: Moment, end: Moment) -> Moment:
    """Tokens a second of either clock."""
    return tokens / (end[0] - start[0]), tokens / (end[1] - start[1])


class Clock(TrainerCallback):
    """When each step of TRL's trainer ended."""

    def __init__(self) -> None:
        self.ends: list[Moment] = []

    def on_step_end(self, args: object, state: object, control: object, **rest: object) -> None:
        self.ends.append(now())


def counting(
    collator: Callable[[list[object]], dict[str, torch.Tensor]], seen: list[int]
) -> Callable[..., object]:
    """The collator, noting how many tokens without padding each batch has."""

    def collate(batch: list[object]) -> dict[str, torch.Tensor]:
        made = collator(batch)
        seen.append(int(made["attention_mask"].sum()))
        return made

    return collate


def plain(examples: list[Example], steps: int, folder: Path) -> Moment:
    """TRL's own trainer."""
    data = Dataset.from_list(
        [
            {"input_ids": one.input_ids.tolist(), "completion_mask": one.is_target.astype(int).tolist()}
            for one in examples
        ]
    )
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        lr_scheduler_type="cosine",
        weight_decay=0.0,
        completion_only_loss=True,
        bf16=False,
        activation_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        max_length=None,
        seed=0,
        data_seed=0,
    )
    clock = Clock()
    seen: list[int] = []
    trainer = SFTTrainer(
        model=model(), args=arguments, train_dataset=data, processing_class=tokenizer(), callbacks=[clock]
    )
    trainer.remove_callback(PrinterCallback)
    trainer.data_collator = counting(trainer.data_collator, seen)
    trainer.train()
    return rates(sum(seen[1:steps]), clock.ends[0], clock.ends[-1])


def ours(sequences: list[list[Example]], batch: int, packed: bool, steps: int, folder: Path) -> Moment:
    """The engine behind `synthgen train`."""
    config = StudentConfig.model_validate(
        {
            "name": "bench",
            "base": "none",
            "data": {"packing": packed},
            "steps": {"max_steps": steps, "batch_size": batch, "learning_rate": RATE, "warmup": 0.0},
            "hardware": {"device": "cpu"},
            "evaluation": {"every": 10 * steps},
        }
    )
    ends: list[Moment] = []

    def note(progress: Progress) -> None:
        ends.append(now())

    work = folder / f"{time.monotonic_ns()}"
    work.mkdir()
    train_model(
        model(), tokenizer(), sequences, (), Distillation(LossConfig()), config, work, pad_id=0, progress=note
    )
    tokens = [orjson.loads(line)["tokens"] for line in (work / "metrics.jsonl").read_bytes().splitlines()]
    return rates(sum(tokens[1:steps]), ends[0], ends[-1])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.disable_progress_bar()
    disable_datasets_bar()
    examples = rows()
    lengths = list(map(len, examples))
    room = max(BATCH * sum(lengths) // ROWS, max(lengths))
    groups = [[examples[at] for at in group] for group in pack(lengths, room)]
    each = [[one] for one in examples]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        runs: dict[str, Callable[[], Moment]] = {
            "TRL": lambda: plain(examples, options.steps, folder / "trl"),
            "ours": lambda: ours(each, BATCH, False, options.steps, folder),
            "ours, packed": lambda: ours(groups, 1, True, options.steps, folder),
        }
        seen: dict[str, list[Moment]] = {name: [] for name in runs}
        for turn in range(options.rounds):
            order = list(runs) if turn % 2 == 0 else list(reversed(runs))
            for name in order:
                seen[name].append(runs[name]())
    print(f"{ROWS} rows, {sum(lengths)} tokens; packed: sequences of up to {room} tokens")
    pairs = {"ours / TRL": ("ours", "TRL"), "packed / unpacked": ("ours, packed", "ours")}
    for clock, which in enumerate(("wall", "CPU")):
        print(f"by {which} time:")
        for name, values in seen.items():
            print(f"  {name}: {shown([value[clock] for value in values], 0)} tokens/s")
        for name, (a, b) in pairs.items():
            ratios = [x[clock] / y[clock] for x, y in zip(seen[a], seen[b], strict=True)]
            print(f"  {name}: {shown(ratios, 2)}, wanted {WANTED[name]}")


def shown(values: list[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


if __name__ == "__main__":
    main()
