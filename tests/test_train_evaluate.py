"""A student measured beside its teacher."""

from pathlib import Path

import orjson
import pytest
import torch

from synthgen.errors import SourceError, UsageError
from synthgen.train.answering import nll, write_answers
from synthgen.train.config import load_student
from synthgen.train.evaluate import evaluate, likeness
from synthgen.train.story import train
from tests.chat_templates import tokenizer
from tests.described import made, rows_file
from tests.runs import cli
from tests.tiny_models import example, tiny_llama

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    reader = tokenizer("chatml")
    reader.save_pretrained(folder)
    stop = reader.eos_token_id
    tiny_llama(
        len(reader), eos_token_id=stop, pad_token_id=stop, max_position_embeddings=1024
    ).save_pretrained(folder)
    return folder


def lines(path: Path, count: int) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {at}?"},
                {"role": "assistant", "content": '{"topic": "number"}'},
            ]
        }
        for at in range(count)
    ]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def student(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A student that learnt the one answer to six questions, and those rows."""
    folder = tmp_path_factory.mktemp("student")
    rows = lines(folder / "rows.jsonl", 6)
    steps = {"max_steps": 80, "batch_size": 6, "learning_rate": 1e-2}
    train(load_student({"name": "tiny", "base": str(base), "steps": steps}), rows, folder / "out")  # type: ignore[dict-item]
    return folder / "out", rows


def test_what_a_student_learnt_is_seen_beside_its_base(
    student: tuple[Path, Path], base: Path, tmp_path: Path
) -> None:
    checkpoint, rows = student

    found = evaluate(
        str(checkpoint), rows, against=str(base), split="train", out=tmp_path / "rows.jsonl", batch_size=4
    )

    assert found.against is not None
    assert (found.rows, found.student.right.value, found.against.right.value) == (6, 1.0, 0.0)
    assert (found.better, found.worse) == (6, 0)
    assert found.p == pytest.approx(2 / 2**6)
    assert found.student.finished.value == 1.0
    assert found.student.nll < 0.1 < found.against.nll
    written = [orjson.loads(line) for line in (tmp_path / "rows.jsonl").read_bytes().splitlines()]
    assert [row["prompt"] for row in written] == [f"What is {at}?" for at in range(6)]
    assert [orjson.loads(row["student"]) for row in written] == [{"topic": "number"}] * 6


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("rows.jsonl", "belongs to the data that is read"),
        (".", "is a folder; name a file with -o"),
        ("gone/answers.jsonl", "there is no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_any_answer(
    out: str, said: str, base: Path, tmp_path: Path
) -> None:
    rows = lines(tmp_path / "rows.jsonl", 2)
    before = rows.read_bytes()

    result = cli("train", "evaluate", base, rows, "-o", tmp_path / out)

    assert result.code == 2
    assert said in result.err
    assert "answers\n" not in result.err
    assert rows.read_bytes() == before


def test_a_wrong_second_checkpoint_is_told_before_any_answer(base: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    result = cli(
        "train", "evaluate", base, lines(tmp_path / "rows.jsonl", 2), "--against", tmp_path / "other"
    )

    assert result.code == 2
    assert "other: no tokenizer can be loaded" in result.err
    assert "answers\n" not in result.err


def test_rows_it_was_trained_on_are_refused(student: tuple[Path, Path]) -> None:
    checkpoint, rows = student

    with pytest.raises(UsageError, match="was trained on these files"):
        evaluate(str(checkpoint), rows)


def test_a_student_that_writes_no_answers_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "student.json").write_bytes(orjson.dumps({"config": {"task": "classify"}}))

    with pytest.raises(UsageError, match="no answers to compare"):
        evaluate(str(tmp_path), lines(tmp_path / "rows.jsonl", 2), against=str(base))


def test_of_a_run_the_test_split_is_asked(base: Path, tmp_path: Path) -> None:
    run = made(tmp_path / "run", rows_file(tmp_path / "in.jsonl"))
    held_out = orjson.loads((run / "manifest.json").read_bytes())["files"]
    expected = sum(entry["rows"] for name, entry in held_out.items() if name.startswith("data/test-"))

    found = evaluate(str(base), run, max_tokens=4)

    assert found.rows == expected > 0
    assert found.student.finished.n == expected


def test_a_run_without_a_test_split_says_how_to_get_one(base: Path, tmp_path: Path) -> None:
    run = made(tmp_path / "run", rows_file(tmp_path / "in.jsonl"), test_share=0.0)

    with pytest.raises(SourceError, match=r"output\.test_share"):
        evaluate(str(base), run)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_change_no_answer(batch_size: int) -> None:
    model = tiny_llama(seed=3).eval()
    prompts = [list(range(3, 3 + length)) for length in (2, 9, 4, 17, 5)]

    answers = write_answers(model, prompts, stop_ids=[2], pad_id=2, max_tokens=6, batch_size=batch_size)

    for prompt, answer in zip(prompts, answers, strict=True):
        alone = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=2)
        expected = alone[0, len(prompt) :].tolist()
        assert answer.finished == (2 in expected)
        assert list(answer.ids) == [token for token in expected if token != 2]


def test_the_loss_is_that_of_transformers() -> None:
    model = tiny_llama(seed=1).eval()
    rows = [example(12, 5, seed=1), example(20, 9, seed=2)]

    ours = nll(model, rows, pad_id=2, batch_size=2)

    sums = [
        model(torch.tensor([row.input_ids.tolist()]), labels=torch.tensor([row.labels.tolist()])).loss.item()
        * row.targets
        for row in rows
    ]
    assert ours == pytest.approx(sum(sums) / 14, rel=1e-5)


@pytest.mark.parametrize(
    ("teacher", "student", "same", "right", "json", "words"),
    [
        ("a b", " a b\n", True, True, None, 1.0),
        ("a b", "b a", False, False, None, 1.0),
        ("a b", "a c", False, False, None, 0.5),
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', False, True, True, 1.0),
        ('{"a": 1}', '```json\n{"a": 1}\n```', False, True, True, 0.8),
        ('{"a": 1}', '{"a": 2}', False, False, True, 0.5),
        ('{"a": 1}', '{"a": 1', False, False, False, 1.0),
        ("5", "5.0", False, False, None, 2 / 3),
        ("", "", True, True, None, 1.0),
        ("!", "?", False, False, None, 1.0),
    ],
)
def test_two_answers_are_compared(
    teacher: str, student: str, same: bool, right: bool, json: bool | None, words: float
) -> None:
    found = likeness(teacher, student)

    assert (found.same, found.right, found.json) == (same, right, json)
    assert found.words == pytest.approx(words)


def test_from_the_command_line_with_a_bar(student: tuple[Path, Path], base: Path) -> None:
    checkpoint, rows = student
    command = ("train", "evaluate", checkpoint, rows, "--split", "train", "--least", 0.9)

    done, poor = cli(*command), cli("train", "evaluate", base, *command[3:], "--json")

    assert done.code == 0, done.err
    assert "100.0%" in done.out
    assert poor.code == 7
    assert orjson.loads(poor.out)["student"]["right"]["value"] == 0
