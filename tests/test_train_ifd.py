"""Instruction-following difficulty: the numbers, the rows that have none, and who reads them."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import orjson
import polars as pl
import pytest
import torch

from synthgen.asking.local_model import model_path
from synthgen.errors import UsageError
from synthgen.train.base import converted
from synthgen.train.config import DataConfig
from synthgen.train.conversation import Conversation
from synthgen.train.ifd import Difficulty, difficulties, opening, rate_dataset
from synthgen.train.local_teacher import LocalTeacher
from synthgen.train.template import ChatFormat, chat_format
from synthgen.types import Message
from tests.chat_templates import tokenizer
from tests.runs import cli, records, save_rows
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)

FORMAT = chat_format(tokenizer("chatml"))
QUESTION = "What is the capital of France?"
ANSWERS = ["The capital of France is Paris.", "Paris.\n\nReally? Really?", "I think it is called Paris."]
SHORT = ["Paris.", "It is.", "Really?", "I know it.", "France", "No city.", "Capital", "Think!"]
HEADERS = {
    "chatml": "<|im_start|>assistant\n",
    "llama3": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<start_of_turn>model\n",
}


def model(format: ChatFormat = FORMAT) -> LocalTeacher:
    """Random, but far from certain that all tokens are alike."""
    return LocalTeacher(tiny_llama(len(format.tokenizer), seed=3, initializer_range=0.2))


def asked(answer: str, *before: Message) -> Conversation:
    messages = (*before, Message("user", QUESTION), Message("assistant", answer))
    return Conversation(messages, (True,) * len(messages))


def loss(teacher: LocalTeacher, format: ChatFormat, before: str, answer: str) -> float:
    """What transformers says of the answer's tokens behind a text."""
    (context, _), (words, _) = format.encode([before, answer])
    labels = torch.tensor([[-100] * len(context) + words])
    return float(teacher.model(input_ids=torch.tensor([context + words]), labels=labels).loss)


@pytest.mark.parametrize("style", HEADERS)
def test_both_passes_are_the_loss_of_transformers(style: str) -> None:
    format = chat_format(tokenizer(style))
    teacher = model(format)
    turn = (Message("user", "Really?"), Message("assistant", "Really."))

    found, refused = difficulties(
        [asked(ANSWERS[0]), asked(ANSWERS[1], *turn)], teacher, format, DataConfig()
    )

    for place, before in enumerate([(), turn]):
        prompt = format.render([*before, Message("user", QUESTION)], prompt=True)
        assert found[place].nll == pytest.approx(loss(teacher, format, prompt, ANSWERS[place]), rel=1e-5)
        alone = loss(teacher, format, HEADERS[style], ANSWERS[place])
        assert found[place].nll_alone == pytest.approx(alone, rel=1e-5)
        assert found[place].ifd == found[place].nll / found[place].nll_alone != 1
    assert not refused


def test_batches_and_padding_change_nothing() -> None:
    rows = [asked(answer * times) for times in (1, 4, 2) for answer in ANSWERS]

    one_by_one, _ = difficulties(rows, model(), FORMAT, DataConfig(), rows=1)
    at_once, _ = difficulties(rows, model(), FORMAT, DataConfig(), rows=9)

    assert sorted(one_by_one) == list(range(9))
    for place, one in one_by_one.items():
        assert at_once[place].nll == pytest.approx(one.nll, rel=1e-5)
        assert at_once[place].nll_alone == pytest.approx(one.nll_alone, rel=1e-5)


def test_a_template_that_writes_a_first_token_begins_with_it() -> None:
    format = chat_format(tokenizer("llama3"))
    format.tokenizer.bos_token = "<|begin_of_text|>"

    assert format.decode([opening(format)]) == ["<|begin_of_text|>" + HEADERS["llama3"]]


def test_a_turn_that_opens_with_nothing_stands_behind_one_token() -> None:
    format = chat_format(tokenizer("mistral"))

    assert opening(format) == [format.stop_id]


def test_answers_of_one_token_or_none_are_counted() -> None:
    rows = [asked(ANSWERS[0]), asked(""), asked("is"), asked("a" + FORMAT.stop)]

    found, refused = difficulties(rows, model(), FORMAT, DataConfig())

    assert len(FORMAT.encode(["is"])[0][0]) == 1
    assert list(found) == [0]
    assert refused == {"empty_answer": 1, "one_token": 1, "control_token": 1}


def test_a_checkpoint_that_overflows_gives_no_score() -> None:
    broken = model()
    broken.model.lm_head.weight.data.fill_(float("nan"))

    assert difficulties([asked(ANSWERS[0])], broken, FORMAT, DataConfig()) == ({}, {"no_ratio": 1})


def test_a_long_row_is_counted_where_long_rows_are_dropped() -> None:
    data = DataConfig(max_length=60, too_long="drop")

    found, refused = difficulties([asked(ANSWERS[0]), asked(ANSWERS[0] * 9)], model(), FORMAT, data)

    assert (list(found), refused) == ([0], {"too_long": 1})


# ---- files


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    FORMAT.tokenizer.save_pretrained(folder)
    model().model.save_pretrained(folder)
    return folder


def rows(answers: list[str]) -> list[dict[str, object]]:
    return [
        {"note": number, "instruction": f"{QUESTION} {number}", "output": answer, "extra": {"kept": [1]}}
        for number, answer in enumerate(answers)
    ]


def saved(path: Path, answers: list[str]) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(rows(answers)).write_parquet(path)
    else:
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows(answers)))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_rows_stay_as_they_were_with_three_columns(tmp_path: Path, checkpoint: Path, suffix: str) -> None:
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in" / f"a.{suffix}", [ANSWERS[0], "is"])
    saved(tmp_path / "in" / f"b.{suffix}", ANSWERS[1:])

    rated = rate_dataset(tmp_path / "in", str(checkpoint), tmp_path / "out")

    read = pl.read_parquet if suffix == "parquet" else pl.read_ndjson
    first, second = (read(tmp_path / "out" / f"{name}.{suffix}") for name in "ab")
    assert first.select("note", "instruction", "output", "extra").to_dicts() == rows([ANSWERS[0], "is"])
    assert [one is None for one in first["ifd"]] == [False, True]
    assert second["ifd"].null_count() == 0
    (alone,) = difficulties(
        [
            replace(
                asked(ANSWERS[2]),
                messages=(Message("user", f"{QUESTION} 1"), Message("assistant", ANSWERS[2])),
            )
        ],
        model(),
        FORMAT,
        DataConfig(),
    )[0].values()
    last = second.row(1, named=True)
    assert Difficulty(last["nll"], last["nll_alone"]).ifd == pytest.approx(alone.ifd, rel=1e-5)
    assert (rated.rows, dict(rated.refused)) == (3, {"one_token": 1})


def test_the_rows_themselves_are_not_overwritten(tmp_path: Path, checkpoint: Path) -> None:
    path = saved(tmp_path / "in.jsonl", ANSWERS)
    before = path.read_bytes()

    with pytest.raises(UsageError, match="another folder"):
        rate_dataset(path, str(checkpoint), tmp_path)

    assert path.read_bytes() == before


def test_a_number_of_alternatives_is_not_ignored(tmp_path: Path, checkpoint: Path) -> None:
    path = saved(tmp_path / "in.jsonl", SHORT)

    refused = cli("train", "score", path, "--teacher", checkpoint, "--ifd", "--k", 5)

    assert (refused.code, "--k 5" in refused.err) == (2, True)


def test_filter_keeps_the_highest_below_1(tmp_path: Path, checkpoint: Path) -> None:
    path = saved(tmp_path / "in.jsonl", ["is", *SHORT])

    scored = cli("train", "score", path, "--teacher", checkpoint, "--ifd", "--json")
    options = ("--no-near", "--score", "ifd", "--keep", "< 1", "--select", 1, "--by", "score:ifd")
    cli("filter", f"{path}.ifd", "-o", tmp_path / "out", "--chain", "none", *options)

    numbers = pl.read_ndjson(tmp_path / "in.jsonl.ifd" / "in.jsonl")["ifd"].drop_nulls()
    below = numbers.filter(numbers < 1)
    assert 1 < len(below) < len(numbers)
    (kept,) = records(tmp_path / "out")
    assert kept["scores"] == [{"name": "ifd", "score": below.max()}]
    assert (scored.json["rows"], scored.json["below_1"]) == (len(SHORT), len(below))
    assert scored.json["refused"] == {"one_token": 1}


# ---- a real checkpoint

PAIRS = {
    "Name three primary colours of light.": "The three primary colours of light are red, green and blue.",
    "How do I boil an egg so that the yolk stays soft?": "Put the egg into boiling water for six minutes, then cool it in cold water.",
    "Translate 'good morning' into French.": "In French, 'good morning' is 'bonjour'.",
    "Write a haiku about autumn leaves.": "Red leaves drift and fall,\nwhispering across the path,\nautumn says goodbye.",
    "Why is the sky blue?": "Air scatters blue light from the sun more than red light, so the sky looks blue.",
    "What is the chemical formula of water?": "The chemical formula of water is H2O: two hydrogen atoms and one oxygen atom.",
    "How can I remove a red wine stain from a carpet?": "Blot the wine stain, pour cold water and salt on the carpet, and blot it again.",
    "Write a Python function that adds two numbers.": "def add(a, b):\n    return a + b",
    "Who wrote Romeo and Juliet?": "Romeo and Juliet was written by William Shakespeare.",
    "Give me a tip for sleeping better.": "Go to bed at the same time every night and keep screens out of the bedroom.",
    "What is the tallest mountain on Earth?": "Mount Everest is the tallest mountain on Earth, at 8,849 metres.",
    "How do plants make their food?": "Plants make food by photosynthesis, from sunlight, water and carbon dioxide.",
}


@pytest.mark.slow
def test_a_real_checkpoint_finds_answers_of_other_prompts_harder(tmp_path: Path) -> None:
    base = str(converted("smollm2-135m", model_path("smollm2-135m")))
    answers = list(PAIRS.values())
    scores = {}
    for name, order in (("right", answers), ("shuffled", answers[5:] + answers[:5])):
        pairs = [{"instruction": asked, "output": given} for asked, given in zip(PAIRS, order, strict=True)]
        path = save_rows(tmp_path / f"{name}.jsonl", pairs)
        assert rate_dataset(path, base, tmp_path / name).rows == len(PAIRS)
        by_answer = pl.read_ndjson(tmp_path / name / path.name)
        scores[name] = dict(by_answer.select("output", "ifd").iter_rows())

    assert sum(scores["right"][one] < scores["shuffled"][one] for one in answers) >= len(answers) - 1
    assert fmean(scores["right"].values()) < 0.8 < fmean(scores["shuffled"].values())
