"""The whole way of a tiny student: data in, folder out."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from synthgen.errors import PolicyError, SourceError, UsageError
from synthgen.train.config import LoadedStudent, load_student
from synthgen.train.story import StudentReport, is_student, train
from tests.chat_templates import tokenizer
from tests.described import made, rows_file
from tests.runs import cli
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    made = tokenizer("chatml")
    made.save_pretrained(folder)
    stop = made.eos_token_id
    tiny_llama(len(made), eos_token_id=stop, pad_token_id=stop, max_position_embeddings=1024).save_pretrained(
        folder
    )
    return folder


def questions(path: Path, count: int = 12) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {at}?"},
                {"role": "assistant", "content": f"It is {at} ."},
            ]
        }
        for at in range(count)
    ]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def student(base: Path, *overrides: str) -> LoadedStudent:
    steps = {"max_steps": 4, "batch_size": 4, "learning_rate": 1e-2}
    return load_student({"name": "tiny", "base": str(base), "steps": steps}, overrides)  # type: ignore[dict-item]


def trained(tmp_path: Path, base: Path, *overrides: str) -> StudentReport:
    return train(student(base, *overrides), questions(tmp_path / "in.jsonl"), tmp_path / "out")


def test_a_student_is_a_checkpoint_that_answers(tmp_path: Path, base: Path) -> None:
    report = trained(tmp_path, base, "steps.max_steps=60", "steps.batch_size=12")

    reader = AutoTokenizer.from_pretrained(report.out)
    model = AutoModelForCausalLM.from_pretrained(report.out)
    asked = reader.apply_chat_template(
        [{"role": "user", "content": "What is 3?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said = model.generate(**asked, max_new_tokens=12, do_sample=False)
    text = reader.decode(said[0, asked["input_ids"].shape[1] :])
    assert text.startswith("It is ")
    assert text.endswith("<|im_end|>")


def test_the_folder_says_what_it_was_made_from(tmp_path: Path, base: Path) -> None:
    report = trained(tmp_path, base)

    manifest = orjson.loads((report.out / "student.json").read_bytes())
    assert manifest["config"]["name"] == "tiny"
    assert manifest["report"]["steps"] == 4
    assert set(manifest["files"]) == {file.name for file in report.out.iterdir()} - {"student.json"}
    assert "What is 0?" in (report.out / "sample.txt").read_text()
    assert "«It is 0 .<|im_end|>»" in (report.out / "sample.txt").read_text()
    assert manifest["dataset"]["digest"] in (report.out / "README.md").read_text()
    assert "<polyline" in (report.out / "loss.svg").read_text()
    assert "(loss.svg)" in (report.out / "README.md").read_text()


def test_nothing_of_the_training_is_left_beside_it(tmp_path: Path, base: Path) -> None:
    trained(tmp_path, base)

    assert {file.name for file in tmp_path.iterdir()} == {"in.jsonl", "out"}


def test_no_path_of_this_machine_is_in_the_checkpoint(tmp_path: Path, base: Path) -> None:
    report = trained(tmp_path, base)

    for name in ("config.json", "tokenizer_config.json"):
        assert str(base.parent) not in (report.out / name).read_text()


def test_the_same_command_again_does_nothing(tmp_path: Path, base: Path) -> None:
    first = trained(tmp_path, base)
    before = {file.name: file.stat().st_mtime_ns for file in first.out.iterdir()}

    again = trained(tmp_path, base)

    assert again == replace(first, trained=False)
    assert {file.name: file.stat().st_mtime_ns for file in first.out.iterdir()} == before


def test_another_student_does_not_overwrite_it(tmp_path: Path, base: Path) -> None:
    trained(tmp_path, base)

    with pytest.raises(UsageError, match="made from another student"):
        trained(tmp_path, base, "seed=1")


def test_a_foreign_folder_is_left_alone(tmp_path: Path, base: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")

    with pytest.raises(UsageError, match="no student of synthgen"):
        trained(tmp_path, base)


def test_an_interrupted_training_is_gone_on_with(tmp_path: Path, base: Path) -> None:
    def interrupt(progress: object) -> None:
        if getattr(progress, "step", 0) == 3:
            raise KeyboardInterrupt

    rows = questions(tmp_path / "in.jsonl")
    with pytest.raises(KeyboardInterrupt):
        train(student(base), rows, tmp_path / "out", progress=interrupt)
    assert not is_student(tmp_path / "out")

    report = train(student(base), rows, tmp_path / "out")

    assert report.resumed_from == 2


def test_an_unfinished_training_of_other_data_is_refused(tmp_path: Path, base: Path) -> None:
    def interrupt(progress: object) -> None:
        if getattr(progress, "step", 0) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(student(base), questions(tmp_path / "in.jsonl"), tmp_path / "out", progress=interrupt)

    with pytest.raises(UsageError, match="unfinished training with another dataset"):
        train(student(base), questions(tmp_path / "in.jsonl", 13), tmp_path / "out")


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=lora", "lora.r=4"),
        ("data.packing=true", "data.max_length=64"),
        ("data.validation_share=0.2", "evaluation.patience=1"),
        ("hardware.precision=bf16",),
    ],
)
def test_every_way_of_training_ends_in_a_student(
    tmp_path: Path, base: Path, overrides: tuple[str, ...]
) -> None:
    report = trained(tmp_path, base, *overrides)

    assert is_student(report.out)
    AutoModelForCausalLM.from_pretrained(report.out)


def test_too_long_rows_are_refused_before_anything_is_trained(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="nothing is cut"):
        trained(tmp_path, base, "data.max_length=10")

    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]


def test_rows_that_cannot_be_trained_on_are_named(tmp_path: Path, base: Path) -> None:
    file = tmp_path / "in.jsonl"
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a<|im_end|>b"}]}
    file.write_bytes(questions(file).read_bytes() + orjson.dumps(row) + b"\n")

    with pytest.raises(UsageError, match=r"in\.jsonl:13: .*control_token"):
        train(student(base), file, tmp_path / "out")
    report = train(student(base, "data.unusable=drop"), file, tmp_path / "out")
    assert report.refused == {"control_token": 1}


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        trained(tmp_path, tmp_path / "nothing")


def test_quantised_adapters_need_their_library(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="bitsandbytes"):
        trained(tmp_path, base, "method=qlora")


# ---- duties of the data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of Llama 3.3, whose licence wants its name in front of a student's."""
    folder = tmp_path_factory.mktemp("llama")
    return made(folder / "out", rows_file(folder / "in.jsonl"), use=("train-general",))


def test_a_name_that_breaks_a_duty_is_refused_before_training(tmp_path: Path, base: Path, run: Path) -> None:
    with pytest.raises(PolicyError, match="Llama"):
        train(student(base), run, tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_the_duties_of_the_data_are_in_the_card(tmp_path: Path, base: Path, run: Path) -> None:
    report = train(student(base, "name=Llama-tiny"), run, tmp_path / "out")

    assert report.obligations
    card = (report.out / "README.md").read_text()
    assert all(duty in card for duty in report.obligations)


# ---- command line


def test_train_from_the_command_line(tmp_path: Path, base: Path) -> None:
    rows, out = questions(tmp_path / "in.jsonl"), tmp_path / "out"
    command = ("train", rows, "--base", base, "--max-steps", 2, "-o", out, "--set", "steps.batch_size=4")

    done = cli(*command, "--json")

    assert done.code == 0, done.err
    assert orjson.loads(done.out)["steps"] == 2
    assert cli(*command).out == f"student: {out} (was there already)\n"


def test_train_from_a_file(tmp_path: Path, base: Path) -> None:
    file = tmp_path / "student.yaml"
    file.write_text(f"name: tiny\nbase: {base}\nsteps: {{max_steps: 2, batch_size: 4}}\n")

    done = cli("train", questions(tmp_path / "in.jsonl"), "-c", file, "-o", tmp_path / "out")

    assert done.code == 0, done.err
    assert "step 2/2" in done.err
    assert "it/s" not in done.err  # no bars of transformers
    assert "2 steps" in done.out


def test_a_student_needs_a_file_or_a_base(tmp_path: Path) -> None:
    done = cli("train", tmp_path / "in.jsonl")

    assert done.code == 2
    assert "-c" in done.err


def test_score_then_train_on_the_soft_labels(tmp_path: Path, base: Path) -> None:
    rows, scores = questions(tmp_path / "in.jsonl"), tmp_path / "scores"
    scored = cli("train", "score", rows, "--teacher", base, "-o", scores, "--k", 5, "--json")
    assert scored.code == 0, scored.err
    assert orjson.loads(scored.out)["turns"] == 12

    report = train(student(base, f"loss.kd.logprobs={scores}", "loss.kd.k=5"), rows, tmp_path / "out")

    lines = [orjson.loads(line) for line in (report.out / "metrics.jsonl").read_bytes().splitlines()]
    assert all(line["kd"] >= 0 for line in lines if "loss" in line)


def test_least_without_prompts_is_refused(tmp_path: Path) -> None:
    done = cli("train", "export", tmp_path, "--as", "gguf:f16", "-o", tmp_path / "x", "--least", 0.9)

    assert done.code == 2
    assert "--prompts" in done.err
