"""The student really learns: tickets -> JSON, through the verbs a user types.

The long form (`-m slow`, SmolLM2-135M, about 25 minutes with `OMP_NUM_THREADS=1` on two busy cores) keeps its students in the
folder SYNTHGEN_STUDENTS where that is set, and goes on from there: the verbs do nothing for what is finished.
"""

import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from synthgen.asking.local_model import DEFAULT_MODEL, model_path
from synthgen.train.base import converted
from synthgen.train.depth import evenly, shallower
from tests.chat_templates import tokenizer
from tests.runs import cli, records, save
from tests.ticket_rows import short_tickets, tickets, write_tickets
from tests.tiny_models import tiny_llama

HELD_OUT = 40
FULL = {"max_steps": 14, "batch_size": 8, "learning_rate": 2e-4, "warmup": 0.2}
LORA = {"max_steps": 60, "batch_size": 4, "learning_rate": 1e-3, "warmup": 0.05}
needs_local = pytest.mark.skipif(
    find_spec("openvino_genai") is None or find_spec("nncf") is None, reason="extra `local` is not installed"
)


@dataclass(frozen=True)
class Work:
    """A folder with rows to train on and rows that no student saw."""

    folder: Path
    train: Path
    test: Path

    def student(self, name: str, *arguments: object, **sections: object) -> Path:
        """Trained by `synthgen train`, or there already."""
        config = {"name": "tickets", "base": DEFAULT_MODEL, "hardware": {"device": "cpu"}, **sections}
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        out = self.folder / name
        done = cli("train", self.train, "-c", file, "-o", out, *arguments)
        assert done.code == 0, done.err
        return out

    def right(self, checkpoint: Path) -> float:
        """The share of held-out rows `synthgen train evaluate` finds right."""
        found = cli("train", "evaluate", checkpoint, self.test, "--limit", HELD_OUT, "--json")
        assert found.code == 0, found.err
        share = found.json["student"]["right"]
        assert share["n"] == HELD_OUT
        return float(share["value"])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    kept = os.environ.get("SYNTHGEN_STUDENTS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("students")
    folder.mkdir(parents=True, exist_ok=True)
    rows = tickets(290, seed=7)
    return Work(
        folder,
        write_tickets(folder / "train.jsonl", rows[:240]),
        write_tickets(folder / "test.jsonl", rows[240:]),
    )


@pytest.fixture(scope="module")
def base() -> Path:
    return converted(DEFAULT_MODEL, model_path(DEFAULT_MODEL))


@pytest.fixture(scope="module")
def learnt(work: Work) -> Path:
    """All weights of SmolLM2-135M, 14 steps of 8 rows."""
    return work.student("full", steps=FULL, evaluation={"every": 14})


@pytest.fixture(scope="module")
def exported(work: Work, learnt: Path) -> Path:
    """The student in four bits, as the verb writes it: it compares the answers and has a bar of its own."""
    target = work.folder / "int4"
    if not target.exists():
        done = cli(
            "train", "export", learnt, "--as", "openvino:int4", "-o", target, "--prompts", work.test, "--least", 0.9
        )  # fmt: skip
        assert done.code == 0, done.err
    return target


# ---- the real model


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_base_gets_none_right(work: Work, base: Path) -> None:
    assert work.right(base) <= 0.05


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fourteen_steps_teach_half_of_it(work: Work, learnt: Path) -> None:
    assert work.right(learnt) >= 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sixty_steps_of_adapters_teach_nearly_all_of_it(work: Work) -> None:
    adapted = work.student("lora", "--lora", steps=LORA, evaluation={"every": 15})

    assert work.right(adapted) >= 0.9


@needs_local
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_in_four_bits_it_gives_the_same_answers(exported: Path) -> None:
    report = orjson.loads(exported.with_name("int4.export.json").read_bytes())

    assert report["agreement"]["prompts"] == 50
    assert len(report["agreement"]["differences"]) <= 5


@needs_local
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_recipe_is_answered_by_the_student(exported: Path, tmp_path: Path) -> None:
    rows = tickets(300, seed=7)[290:]
    recipe = {
        "name": "served",
        "use": ["train-general"],
        "source": {"inline": [{"instruction": text} for text, _ in rows]},
        "teachers": {
            "student": {
                "provider": "local",
                "model": str(exported),
                "hf": "HuggingFaceTB/SmolLM2-135M-Instruct",  # whose licence the student is under
                "sampling": {"max_tokens": 40},
            }
        },
        "steps": [{"name": "answer", "prompt": "answer", "teacher": "student"}],
        "refine": {"chain": "none"},
    }

    done = cli("generate", save(tmp_path / "recipe.yaml", recipe), "-o", tmp_path / "run")

    assert done.code == 0, done.err
    made = records(tmp_path / "run")
    wanted = dict(rows)
    answers = {row["messages"][-2]["content"]: row["messages"][-1]["content"] for row in made}
    assert len(answers) == len(rows)
    assert sum(answers[text] == wanted[text] for text in wanted) >= len(rows) // 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_shallower_student_learns_from_scores_of_stored_answers(work: Work, learnt: Path) -> None:
    thin = work.folder / "thin"
    if not thin.exists():
        teacher = AutoModelForCausalLM.from_pretrained(learnt)
        shallower(teacher, evenly(teacher.config.num_hidden_layers, 10)).save_pretrained(thin)
        AutoTokenizer.from_pretrained(learnt).save_pretrained(thin)
    rows = write_tickets(work.folder / "stored.jsonl", tickets(96, seed=7))
    scores = work.folder / "stored.logprobs"

    scored = cli("train", "score", rows, "--teacher", learnt, "-o", scores, "--json")
    distilled = replace(work, train=rows).student(
        "distilled",
        base=str(thin),
        loss={"kd": {"weight": 0.9, "k": 20, "logprobs": str(scores)}},
        steps={"max_steps": 12, "batch_size": 8, "learning_rate": 2e-4, "warmup": 0.2},
        evaluation={"every": 12},
    )

    assert scored.code == 0, scored.err
    assert scored.json["turns"] == 96
    lines = [orjson.loads(line) for line in (distilled / "metrics.jsonl").read_bytes().splitlines()]
    kd = [line["kd"] for line in lines if "kd" in line]
    assert len(kd) == 12
    assert sum(kd[-3:]) < sum(kd[:3]) / 2
    assert orjson.loads((distilled / "student.json").read_bytes())["report"]["refused"] == {}


# ---- a random model of two layers, in seconds


def test_a_tiny_student_learns_what_decides_and_not_the_rows(tmp_path: Path) -> None:
    reader = tokenizer("chatml")
    reader.save_pretrained(tmp_path / "tiny")
    stop = reader.eos_token_id
    tiny_llama(len(reader), eos_token_id=stop, pad_token_id=stop).save_pretrained(tmp_path / "tiny")
    rows = short_tickets(seed=1)
    trained = write_tickets(tmp_path / "train.jsonl", rows[:-HELD_OUT])
    work = Work(tmp_path, trained, write_tickets(tmp_path / "test.jsonl", rows[-HELD_OUT:]))

    student = work.student(
        "small",
        base=str(tmp_path / "tiny"),
        steps={"max_steps": 60, "batch_size": 16, "learning_rate": 1e-2, "warmup": 0.1},
        evaluation={"every": 60},
    )

    assert work.right(tmp_path / "tiny") == 0
    assert work.right(student) >= 0.9
