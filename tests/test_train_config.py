"""A student's file: the same loader and the same errors as recipes."""

from pathlib import Path

import pytest

from synthgen.errors import RecipeError
from synthgen.train.config import load_student

STUDENT = """\
name: support-student
base: smollm2-135m
method: lora
data:
  max_length: 512
steps: {batch_size: 8, micro_batch: 4}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "student.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_loaded(tmp_path: Path) -> None:
    loaded = load_student(written(tmp_path, STUDENT))

    assert (loaded.config.base, loaded.config.data.max_length) == ("smollm2-135m", 512)


def test_an_override_wins(tmp_path: Path) -> None:
    loaded = load_student(written(tmp_path, STUDENT), ["steps.epochs=1"])

    assert loaded.config.steps.epochs == 1


def test_an_override_changes_the_digest(tmp_path: Path) -> None:
    path = written(tmp_path, STUDENT)

    assert load_student(path).digest != load_student(path, ["seed=1"]).digest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  max_lenght: 3", r"student.yaml:6: data.max_lenght: unknown key.*max_length"),
        ("  too_long: cut", r"student.yaml:6: data.too_long: .*'error' or 'drop'"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path: Path, line: str, said: str) -> None:
    path = written(tmp_path, STUDENT.replace("  max_length: 512\n", f"  max_length: 512\n{line}\n"))

    with pytest.raises(RecipeError, match=said):
        load_student(path)


def test_patience_without_a_validation_share_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, STUDENT + "evaluation: {patience: 2}\n")

    with pytest.raises(RecipeError, match=r"needs data\.validation_share"):
        load_student(path)


def test_a_micro_batch_divides_the_batch(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"3 does not divide steps\.batch_size 8"):
        load_student(written(tmp_path, STUDENT), ["steps.micro_batch=3"])


def test_the_learning_rate_of_adapters_is_ten_times_the_full_one() -> None:
    full = load_student({"name": "s", "base": "b"}).config
    lora = load_student({"name": "s", "base": "b", "method": "lora"}).config

    assert lora.learning_rate == pytest.approx(10 * full.learning_rate)


@pytest.mark.parametrize(
    ("override", "steps", "warmup"),
    [
        ("seed=1", 4, 1),
        ("seed=1", 14, 3),
        ("seed=1", 60, 5),
        ("seed=1", 1000, 30),
        ("steps.warmup=0", 14, 0),
        ("steps.warmup=0.1", 14, 2),
    ],
)
def test_a_short_training_warms_up_too(tmp_path: Path, override: str, steps: int, warmup: int) -> None:
    config = load_student(written(tmp_path, STUDENT), [override]).config

    assert config.warmup_steps(steps) == warmup


def test_liger_is_yes_no_or_automatic() -> None:
    """`on` and `off` of YAML are true and false."""
    found = [
        load_student({"name": "s", "base": "b"}, [f"hardware.liger={word}"]).config.hardware.liger
        for word in ("auto", "true", "off")
    ]

    assert found == ["auto", True, False]
