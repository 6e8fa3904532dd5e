"""A student's file names a task, and `synthgen train` does it: classifiers, embeddings, on-policy, chains; end to end."""

import json
import math
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
import torch
import yaml
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
)

from synthgen.errors import RecipeError, SourceError, UsageError
from synthgen.train.config import read_student, validated
from synthgen.train.conversation import Conversation
from synthgen.train.metrics import Progress
from synthgen.train.reading import read_dataset
from synthgen.train.tasks.config import ClassifyConfig, TextConfig
from synthgen.train.tasks.dispatch import train_file
from synthgen.train.tasks.folder import TaskReport
from synthgen.train.tasks.labels import class_rows
from synthgen.train.tasks.texts import question
from synthgen.types import Message
from tests.chat_templates import tokenizer
from tests.loopback import Body, Loopback
from tests.runs import cli, recipe, save
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)

DOCS = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
TOKENIZER = tokenizer("chatml")
CLASSES = ["animal", "tool", "city"]
WORDS = {
    "animal": ["cat", "dog", "horse", "cow"],
    "tool": ["saw", "drill", "axe", "file"],
    "city": ["Rome", "Oslo", "Bonn", "Lima"],
}
KIND = {word: kind for kind, words in WORDS.items() for word in words}
QUESTIONS = [f"Look, {word} {n}!" for word in KIND for n in range(8)]
SAMPLES = 4


def named(body: Body) -> str:
    """The class of the word asked about; one in five samples is wrong, as a hash of the request decides."""
    text = str(body["messages"])
    right = next(kind for word, kind in KIND.items() if word in text)
    digest = sha256(json.dumps(body, sort_keys=True).encode()).digest()
    return right if digest[0] % 5 else CLASSES[(CLASSES.index(right) + 1) % 3]


def measured(body: Body, answer: Body) -> Body:
    """The same with probabilities of the classes, each one token; the class named first is likeliest."""
    choices = answer["choices"]
    assert isinstance(choices, list)
    for choice in choices:
        assert isinstance(choice, dict)
        if body.get("logprobs"):
            said = choice["message"]["content"]  # type: ignore[index,call-overload]
            tops = [
                {
                    "token": name,
                    "logprob": math.log(0.8 if one == said else 0.09),
                    "bytes": list(name.encode()),
                }
                for one in sorted(CLASSES, key=lambda one: one != said)
                for name in [f"token_id:{10 + CLASSES.index(one)}"]  # as vLLM names alternatives
            ]
            entry = {**tops[0], "bytes": list(str(said).encode()), "top_logprobs": tops}
            choice["logprobs"] = {"content": [entry]}
            choice["token_ids"] = [10 + CLASSES.index(said)]  # type: ignore[arg-type]
    return answer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four answers to each question, of which duplicate removal keeps the different ones; a test split."""
    folder = tmp_path_factory.mktemp("votes")
    with Loopback(reply=named) as server:
        content = recipe(server, 1)
        content["source"] = {"inline": [{"instruction": text} for text in QUESTIONS]}
        content["steps"][0]["samples"] = SAMPLES
        content["output"] = {"test_share": 0.2}
        content["refine"] = {"chain": "none", "dedup": {"near": None}}
        done = cli("generate", save(folder / "r.yaml", content), "-o", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One answer to each question, with probabilities."""
    folder = tmp_path_factory.mktemp("choices")
    with Loopback(reply=named, edit=measured) as server:
        content = recipe(server, 1)
        content["source"] = {"inline": [{"instruction": text} for text in QUESTIONS]}
        content["steps"][0]["capture"] = {"logprobs": 3}
        content["refine"] = {"chain": "none", "dedup": {"near": None}}
        done = cli("generate", save(folder / "r.yaml", content), "-o", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "encoder"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=TOKENIZER.pad_token_id,
    )
    BertModel(config).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "writer"
    stop = TOKENIZER.eos_token_id
    tiny_llama(
        len(TOKENIZER), eos_token_id=stop, pad_token_id=stop, max_position_embeddings=1024
    ).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def classifying(base: Path, **changes: object) -> dict[str, Any]:
    return {
        "name": "kinds",
        "task": "classify",
        "base": str(base),
        "classes": CLASSES,
        "training": {"epochs": 20, "batch_size": 8, "learning_rate": 3e-3},
        **changes,
    }


def config_of(content: dict[str, Any]) -> ClassifyConfig:
    document, folder = read_student(content)
    return validated(ClassifyConfig, document, folder).config


# ---- votes and choices of a run


def test_all_samples_of_a_text_vote_also_those_removed_as_duplicates(run: Path, encoder: Path) -> None:
    data = read_dataset(run)
    assert (
        len(data.conversations) < len({one.row for one in data.conversations}) * SAMPLES
    )  # some were removed

    found = class_rows(data, config_of(classifying(encoder)), Path)

    assert found.answers == len(found.rows) * SAMPLES
    assert {round(share * SAMPLES, 9) % 1 for row in found.rows for share in row.probabilities} == {0}
    assert any(max(row.probabilities) < 1 for row in found.rows)


def test_no_text_of_the_test_split_votes(run: Path, encoder: Path) -> None:
    files = sorted(run.glob("data/test-*.parquet"))
    tested = {row["messages"][-2]["content"] for row in pl.read_parquet(files).to_dicts()}

    found = class_rows(read_dataset(run), config_of(classifying(encoder)), Path)

    assert tested
    assert not tested & {row.text for row in found.rows}
    assert {row.text for row in found.rows} | tested == set(QUESTIONS)


def test_choices_are_the_probabilities_of_one_answer(captured: Path, encoder: Path) -> None:
    vocabulary = encoder.parent / "speller"
    spelling(vocabulary)

    config = config_of(classifying(encoder, labels={"source": "choices", "tokenizer": str(vocabulary)}))
    found = class_rows(read_dataset(captured), config, Path)

    assert len(found.rows) == len(QUESTIONS)
    assert {tuple(round(p, 3) for p in sorted(row.probabilities)) for row in found.rows} == {
        (0.092, 0.092, 0.816)
    }


def spelling(folder: Path) -> None:
    """A tokenizer whose ids 10, 11, 12 are the classes."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {f"w{at}": at for at in range(10)} | {name: 10 + at for at, name in enumerate(CLASSES)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")), unk_token="w0"
    ).save_pretrained(folder)


def test_ids_without_texts_need_a_tokenizer(captured: Path, encoder: Path) -> None:
    config = config_of(classifying(encoder, labels={"source": "choices"}))

    with pytest.raises(UsageError, match=r"labels\.tokenizer"):
        class_rows(read_dataset(captured), config, Path)


def test_choices_of_a_run_without_captures_are_refused(run: Path, encoder: Path) -> None:
    config = config_of(classifying(encoder, labels={"source": "choices"}))

    with pytest.raises(UsageError, match="needs captured logprobs"):
        class_rows(read_dataset(run), config, Path)


def test_answers_that_name_no_class_are_counted(run: Path, encoder: Path) -> None:
    config = config_of(classifying(encoder, classes=["animal", "tool"]))

    found = class_rows(read_dataset(run), config, Path)

    assert found.refused["no_class"] > 0
    with pytest.raises(UsageError, match="no text has an answer"):
        class_rows(read_dataset(run), config_of(classifying(encoder, classes=["x", "y"])), Path)


def test_a_class_inside_json_is_found_by_its_field(tmp_path: Path, encoder: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(
        b"".join(
            orjson.dumps({"prompt": f"q{n}", "completion": json.dumps({"kind": kind, "n": n})}) + b"\n"
            for n, kind in enumerate(["tool", "city"])
        )
    )

    found = class_rows(read_dataset(file), config_of(classifying(encoder, labels={"field": "kind"})), Path)

    assert [row.probabilities for row in found.rows] == [(0, 1, 0), (0, 0, 1)]


def test_the_text_is_what_follows_the_teachers_instructions() -> None:
    turns = (
        Message("system", "Be brief."),
        Message("user", "Which kind?\n\nText: a cat"),
        Message("assistant", "x"),
    )
    conversation = Conversation(turns, (True,) * 3)

    assert question(conversation, TextConfig(after="Text:")) == "a cat"
    assert (
        question(conversation, TextConfig(read="all", after="Be ")) == "brief.\n\nWhich kind?\n\nText: a cat"
    )
    assert question(conversation, TextConfig(after="Ticket:")) is None


# ---- classifiers and embeddings


def test_a_classifier_is_trained_on_a_run(run: Path, encoder: Path, tmp_path: Path) -> None:
    file = tmp_path / "student.yaml"
    file.write_text(yaml.safe_dump(classifying(encoder)))

    done = cli("train", run, "-c", file, "-o", tmp_path / "out", "--json")

    assert done.code == 0, done.err
    report = done.json
    assert report["numbers"]["accuracy"] > report["numbers"]["chance"] + 0.2
    assert report["refused"]["in_test_split"] > 0
    reader = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    asked = reader(["Look, Oslo 7!"], return_tensors="pt")
    logits = model(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"]).logits
    assert model.config.id2label[int(logits.argmax())] == "city"
    manifest = orjson.loads((tmp_path / "out" / "student.json").read_bytes())
    assert set(manifest["files"]) == {one.name for one in (tmp_path / "out").iterdir()} - {"student.json"}
    assert "pipeline_tag: text-classification" in (tmp_path / "out" / "README.md").read_text()
    assert cli("train", run, "-c", file, "-o", tmp_path / "out").out.endswith("(was there already)\n")


def test_another_classifier_does_not_overwrite_it(run: Path, encoder: Path, tmp_path: Path) -> None:
    quick = {"epochs": 1, "batch_size": 16}
    train_file(classifying(encoder, training=quick), run, tmp_path / "out")

    with pytest.raises(UsageError, match="made from another student"):
        train_file(classifying(encoder, training=quick, seed=1), run, tmp_path / "out")


def test_an_embedding_student_learns_from_a_checkpoint(run: Path, encoder: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    torch.manual_seed(7)
    BertModel(
        BertConfig(
            vocab_size=len(TOKENIZER), hidden_size=48, num_hidden_layers=1, num_attention_heads=4,
            intermediate_size=64, initializer_range=0.3, pad_token_id=TOKENIZER.pad_token_id,
        )
    ).save_pretrained(teacher)  # fmt: skip
    TOKENIZER.save_pretrained(teacher)
    content = {
        "name": "near", "task": "embed", "base": str(encoder), "teacher": str(teacher), "validation_share": 0.3,
        "training": {"epochs": 10, "batch_size": 16, "learning_rate": 3e-3},
    }  # fmt: skip

    report = train_file(content, run, tmp_path / "out")

    assert isinstance(report, TaskReport)
    assert report.numbers["correlation_after"] > report.numbers["correlation_before"]
    assert AutoModel.from_pretrained(tmp_path / "out").config.hidden_size == 32


def test_an_embedding_student_learns_from_anybodys_vectors(encoder: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(QUESTIONS), 8)).astype(np.float32)
    pl.DataFrame({"text": QUESTIONS, "vector": vectors.tolist()}).write_parquet(tmp_path / "v.parquet")
    content = {
        "name": "near",
        "task": "embed",
        "base": str(encoder),
        "training": {"epochs": 1, "batch_size": 16},
    }

    report = train_file(content, tmp_path / "v.parquet", tmp_path / "out")

    assert isinstance(report, TaskReport)
    assert report.rows + report.validation_rows == len(QUESTIONS)


@pytest.mark.parametrize("task", ["classify", "embed"])
def test_every_step_of_these_tasks_is_told(task: str, run: Path, encoder: Path, tmp_path: Path) -> None:
    training = {"epochs": 2, "batch_size": 16}
    told: list[Progress] = []
    if task == "classify":
        content, data = classifying(encoder, training=training), run
    else:
        vectors = np.random.default_rng(0).normal(size=(len(QUESTIONS), 8)).astype(np.float32)
        data = tmp_path / "v.parquet"
        pl.DataFrame({"text": QUESTIONS, "vector": vectors.tolist()}).write_parquet(data)
        content = {"name": "near", "task": "embed", "base": str(encoder), "training": training}

    report = train_file(content, data, tmp_path / "out", progress=told.append)

    assert isinstance(report, TaskReport)
    steps = 2 * math.ceil(report.rows / 16)
    assert [one.step for one in told] == list(range(1, steps + 1))
    assert {one.steps for one in told} == {steps}
    assert (told[-1].epoch, told[-1].remaining_s) == (2, 0)
    assert told[-1].loss is not None


def test_a_file_in_the_place_of_the_folder_is_named(run: Path, encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")

    with pytest.raises(UsageError, match="out: is a file"):
        train_file(classifying(encoder), run, tmp_path / "out")


def test_a_file_without_vectors_says_what_it_lacks(run: Path, encoder: Path, tmp_path: Path) -> None:
    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "v.parquet")

    with pytest.raises(SourceError, match="columns `text` and `vector`"):
        train_file(
            {"name": "n", "task": "embed", "base": str(encoder)}, tmp_path / "v.parquet", tmp_path / "o"
        )


# ---- on-policy, and chains


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_an_on_policy_student_is_a_file_too(run: Path, writer: Path, tmp_path: Path) -> None:
    content = {
        "name": "own-words", "task": "on_policy", "base": str(writer),
        "on_policy": {"teacher": str(writer), "max_new_tokens": 4, "max_steps": 1, "batch_size": 2},
    }  # fmt: skip

    report = train_file(content, run, tmp_path / "out")

    assert isinstance(report, TaskReport)
    assert report.numbers["steps"] == 1
    assert report.rows == len({one.messages[0].content for one in read_dataset(run).conversations})
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def chained(base: Path) -> dict[str, Any]:
    return {
        "student": {"base": str(base), "steps": {"max_steps": 1, "batch_size": 4}},
        "stages": [
            {"name": "middle"},
            {"name": "small", "set": {"loss.teacher": "stage:middle", "loss.logits.weight": 0.5}},
        ],
    }


def test_a_chain_trains_its_stages_one_after_the_other(run: Path, writer: Path, tmp_path: Path) -> None:
    file = tmp_path / "chain.yaml"
    file.write_text(yaml.safe_dump(chained(writer)))

    done = cli("train", run, "-c", file, "-o", tmp_path / "out", "--json")

    assert done.code == 0, done.err
    assert [stage["steps"] for stage in done.json["stages"]] == [1, 1]
    manifest = orjson.loads((tmp_path / "out" / "small" / "student.json").read_bytes())
    assert manifest["config"]["loss"]["teacher"] == str(tmp_path / "out" / "middle")
    again = cli("train", run, "-c", file, "-o", tmp_path / "out")
    assert again.out.count("was there already") == 2


def test_a_wrong_stage_stops_the_chain_before_the_first(run: Path, writer: Path, tmp_path: Path) -> None:
    content = chained(writer)
    content["stages"][1]["set"]["steps.epocs"] = 3

    with pytest.raises(RecipeError, match=r"stage small: .*epocs"):
        train_file(content, run, tmp_path / "out")

    assert not (tmp_path / "out").exists()


# ---- the file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: clasify\nname: x\nbase: y\n", r"student\.yaml:1: task = 'clasify' .*did you mean 'classify'"),
        ("name: x\ntask: classify\nbase: y\nclasses: [a, b]\nlabel: {}\n", r"student\.yaml:5: .*labels"),
        ("name: x\ntask: classify\nbase: y\nclasses: [a, A]\n", "one is there twice"),
        ("name: x\ntask: classify\nbase: y\nclasses: [a, b]\nlabels: {before: z}\n", "for choices"),
        ("name: x\ntask: embed\nbase: y\ntraining: {epochs: 0}\n", r"student\.yaml:4: training\.epochs"),
        ("name: x\ntask: on_policy\nbase: y\n", r"student\.yaml:1: on_policy"),
        ("name: x\nbase: y\nclasses: [a, b]\n", r"student\.yaml:3: classes"),
    ],
)
def test_a_wrong_file_is_told_with_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "student.yaml").write_text(text)

    with pytest.raises(RecipeError, match=said):
        train_file(tmp_path / "student.yaml", tmp_path / "nothing.jsonl", tmp_path / "out")


def test_the_shown_classifier_is_trained_as_shown(run: Path, encoder: Path, tmp_path: Path) -> None:
    (shown,) = re.findall(r"^```yaml\n(name: [^`]*task: classify.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
    (tmp_path / "student.yaml").write_text(shown)
    small = [f"base={encoder}", f"classes={json.dumps(CLASSES)}", "text.after=null", "training.epochs=1"]
    overrides = [word for one in small for word in ("--set", one)]

    done = cli("train", run, "-c", tmp_path / "student.yaml", "-o", tmp_path / "out", *overrides)

    assert done.code == 0, done.err
    assert "calibration error after" in done.out
