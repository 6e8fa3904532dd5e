"""What README and docs show is true: commands run, Python runs, snippets fit the schema, links and names resolve.

Each command is run in a copy of the examples beside the README's own recipe, whose server is the loopback teacher. The
one command that needs the embedded model runs once, with one row and a few tokens.
"""

import ast
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import orjson
import polars as pl
import pytest
import yaml

from synthgen import api, errors
from synthgen.plugins import plugin_names
from synthgen.schema import RecordShape, judgements_schema, logprobs_schema, record_schema, rejected_schema
from synthgen.train.config import load_student
from tests.chat_templates import tokenizer as chat_tokenizer
from tests.documented import ROOT, Teacher, fix_the_day, overrides, run_command
from tests.loopback import Loopback
from tests.tiny_models import tiny_llama

README = (ROOT / "README.md").read_text(encoding="utf-8")
FORMATS = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
JUDGE = (ROOT / "docs" / "judge.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
DOCUMENTS = {
    "docs/training.md": TRAINING,
    "README.md": README,
    "docs/formats.md": FORMATS,
    "docs/architecture.md": ARCHITECTURE,
    "docs/judge.md": JUDGE,
}
QUESTIONS = 120
RUN = "runs/support-answers"
PLAIN = RecordShape()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language in the README."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every `synthgen ...` line of the README, without its comment."""
    lines = [
        line for language in ("bash", "console") for block in blocks(language) for line in block.splitlines()
    ]
    return [line.split("#")[0].strip() for line in lines if line.startswith("synthgen ")]


RECIPE, STUDENT, AXOLOTL = blocks("yaml")
(LLAMA_FACTORY,) = blocks("json")
API, LOADING, TRL = blocks("python")
LOCAL = [command for command in commands() if "quickstart.yaml" in command]


@dataclass(frozen=True, slots=True)
class Workplace:
    """A folder with the README's recipe, its questions and the examples; `run` is its finished run."""

    folder: Path
    url: str
    run: Path


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("runs"))
    questions = "".join(
        f'{{"instruction": "Why is the number {n} odd or even?"}}\n' for n in range(QUESTIONS)
    )
    (folder / "questions.jsonl").write_text(questions, encoding="utf-8")
    theirs = {
        "messages": [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Red."}]
    }
    (folder / "theirs.jsonl").write_bytes(orjson.dumps(theirs) + b"\n")
    save_student(folder)
    with Loopback(reply=Teacher()) as server, pytest.MonkeyPatch.context() as patch:
        fix_the_day(patch)
        assert "http://127.0.0.1:8000/v1" in RECIPE
        recipe = RECIPE.replace("http://127.0.0.1:8000/v1", server.url)
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        assert api.generate(folder / "recipe.yaml", folder / RUN).problem is None
        accepted = pl.read_parquet(folder / RUN / "data" / "train-*.parquet")["id"]
        labels = "".join(
            f'{{"id": "{id_}", "label": {"true" if n % 9 else "false"}}}\n' for n, id_ in enumerate(accepted)
        )
        (folder / "labels.jsonl").write_text(labels, encoding="utf-8")
        yield Workplace(folder, server.url, folder / RUN)


def save_student(folder: Path) -> None:
    """A student's file whose base is tiny, in the place of the shown one's."""
    tokenizer = chat_tokenizer("chatml")
    tokenizer.save_pretrained(folder / "base")
    tiny_llama(len(tokenizer), max_position_embeddings=4096).save_pretrained(folder / "base")
    (folder / "student.yaml").write_text(
        "{name: support-student, base: base, steps: {max_steps: 1}, hardware: {device: cpu}}"
    )


@pytest.fixture
def here(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The workplace as working directory, on the day of the docs, without any vendor's key."""
    fix_the_day(monkeypatch)
    monkeypatch.chdir(workplace.folder)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    return workplace


def fitted(command: str, here: Workplace) -> list[str]:
    """The words of a command, with the loopback teacher for remote ones and a real id for the shown one."""
    words = shlex.split(command.split(">")[0].replace("http://127.0.0.1:8000/v1", here.url))
    if "--row" in words:
        shown = words.index("--row") + 1
        assert re.fullmatch(r"[0-9a-f]+", words[shown])
        words[shown] = pl.read_parquet(here.run / "data" / "train-*.parquet")["id"][0][:12]
    if len(words) > 2 and words[2].startswith("examples/"):
        for override in overrides(Path(words[2]), here.url):
            words += ["--set", override]
    return words


def test_the_table_of_teachers_names_every_provider() -> None:
    table = README.partition("## Teachers")[2].partition("## ")[0]

    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == plugin_names("provider")


def test_the_readme_shows_every_verb() -> None:
    shown = {command.split()[1] for command in commands()}

    verbs = {
        "generate",
        "cancel",
        "plan",
        "doctor",
        "filter",
        "dedup",
        "report",
        "show",
        "list",
        "schema",
        "policy",
        "train",
        "judge",
    }
    assert shown == verbs


@pytest.mark.parametrize("command", [command for command in commands() if command not in LOCAL])
def test_a_shown_command_ends_well(
    command: str, here: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_command(fitted(command, here), monkeypatch)

    assert code == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def test_the_quickstart_command_asks_the_embedded_model(
    here: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino_genai")
    (command,) = LOCAL
    steps = yaml.safe_load(Path("examples/quickstart.yaml").read_text(encoding="utf-8"))["steps"]
    small = ["source.limit=1", "output.test_share=0"]
    small += [f"steps.{number}.sampling.max_tokens=16" for number in range(len(steps))]
    small += [f"steps.{number}.samples=1" for number in range(len(steps))]
    words = [*shlex.split(command), *(word for text in small for word in ("--set", text))]

    assert run_command([*words, "-o", "runs/quickstart"], monkeypatch) == 0

    summary = api.show("runs/quickstart")
    assert isinstance(summary, api.RunSummary)
    assert summary.counts["planned"] == 1


def test_the_shown_recipe_meets_its_target(here: Workplace) -> None:
    recipe = yaml.safe_load(RECIPE)

    accepted = pl.read_parquet(here.run / "data" / "*.parquet")

    assert len(accepted) == recipe["target"]
    assert accepted["id"].is_unique().all()


def test_the_shown_recipe_has_about_twenty_lines() -> None:
    assert len(RECIPE.splitlines()) <= 22


def test_the_shown_recipe_asks_nothing_twice(here: Workplace) -> None:
    report = api.generate("recipe.yaml", RUN)

    assert report.sent == 0


def test_the_shown_python_runs(here: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(API, "README.md", "exec"), {})

    planned, ended = capsys.readouterr().out.splitlines()
    assert planned.endswith("(0.0, 0.0, 0.0)")
    assert ended.startswith("0 200 ")


def test_the_shown_way_to_load_the_dataset_works(
    here: Workplace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    reject_one(here)
    names: dict[str, datasets.arrow_dataset.Dataset] = {}

    exec(compile(LOADING.replace(f'"{RUN}"', '"runs/with-rejects"'), "README.md", "exec"), names)

    assert [turn["role"] for turn in names["train"][0]["messages"]] == ["user", "assistant"]
    assert {"stage", "reason"} <= set(names["dropped"].column_names)


def reject_one(here: Workplace) -> None:
    """A copy of the run without its longest answer; the loopback teacher's answers are all accepted."""
    messages = pl.read_parquet(f"{here.run}/data/train-*.parquet")["messages"]
    longest = max(len(record[-1]["content"]) for record in messages)
    chain = here.folder / "odd.yaml"
    chain.write_text(
        "name: odd\nversion: 1\ndescription: rejects long answers\nlicence: Apache-2.0\n"
        f"steps:\n  - length: {{max_chars: {longest - 1}}}\n",
        encoding="utf-8",
    )
    report = api.filter([here.run], "runs/with-rejects", options=api.FilterOptions(chain=str(chain)))
    assert report.counts["rejected"] > 0
    assert report.counts["accepted"] > 0


def test_the_trl_snippet_is_python_that_loads_the_same_run() -> None:
    calls = [node for node in ast.walk(ast.parse(TRL)) if isinstance(node, ast.Call)]
    named = {ast.unparse(call.func): call for call in calls}

    assert ast.unparse(named["load_dataset"]) == f"load_dataset('{RUN}', split='train')"
    assert {keyword.arg for keyword in named["SFTTrainer"].keywords} == {"model", "args", "train_dataset"}


def test_the_shown_student_is_one(tmp_path: Path) -> None:
    (tmp_path / "student.yaml").write_text(STUDENT)

    assert load_student(tmp_path / "student.yaml").config.method == "lora"


def test_the_student_of_the_training_docs_is_one(tmp_path: Path) -> None:
    shown, _ = re.findall(
        r"^```yaml\n(.*?)^```$", TRAINING, re.DOTALL | re.MULTILINE
    )  # test_train_tasks has the other
    (tmp_path / "student.yaml").write_text(shown)

    assert load_student(tmp_path / "student.yaml").config.name == "tickets"


def test_the_axolotl_snippet_maps_to_our_columns() -> None:
    (dataset,) = yaml.safe_load(AXOLOTL)["datasets"]

    assert dataset["path"] == RUN
    assert dataset["field_messages"] in record_schema(PLAIN)
    assert set(dataset["message_property_mappings"].values()) == message_fields()


def test_the_llama_factory_snippet_maps_to_our_columns() -> None:
    (dataset,) = json.loads(LLAMA_FACTORY).values()

    assert set(dataset["columns"].values()) <= set(record_schema(PLAIN))
    assert {dataset["tags"]["role_tag"], dataset["tags"]["content_tag"]} == message_fields()
    assert {dataset["tags"][f"{role}_tag"] for role in ("user", "assistant", "system")} == {
        "user",
        "assistant",
        "system",
    }


def message_fields() -> set[str]:
    """Fields of a message in a plain chat set."""
    messages = record_schema(PLAIN)["messages"]
    assert isinstance(messages, pl.List)
    assert isinstance(messages.inner, pl.Struct)
    return {field.name for field in messages.inner.fields}


def test_the_exit_codes_are_those_of_the_errors() -> None:
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    raised = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.SynthgenError)
    }

    assert shown == raised | {0}


def test_make_targets_the_readme_names_exist() -> None:
    named = set(re.findall(r"^make (\S+)", "\n".join(blocks("bash")), re.MULTILINE))
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert named
    assert named <= set(targets)


def test_extras_the_readme_names_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    for extra in ("local", "fast", "train"):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
        assert f"`{extra}`" in README or f"[{extra}]" in README


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }

    for target in re.findall(r"\]\(([^)]+)\)", DOCUMENTS[name]):
        if target.startswith("#"):
            assert target[1:] in anchors
        else:
            assert (ROOT / name).parent.joinpath(target).exists(), target


def test_the_architecture_names_every_package() -> None:
    packages = [path.parent.name for path in (ROOT / "synthgen").glob("*/__init__.py")]

    assert len(packages) >= 9
    for package in packages:
        assert f"`synthgen/{package}`" in ARCHITECTURE


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_the_docs_name_in_the_package_exist(name: str) -> None:
    for path in re.findall(
        r"`((?:synthgen/)?(?:pipeline|refine|asking|dataset|policy)/\w+\.py)`", DOCUMENTS[name]
    ):
        assert (ROOT / "synthgen" / path.removeprefix("synthgen/")).is_file(), path


def test_formats_lists_the_columns_of_a_record() -> None:
    section = FORMATS.split("## Record")[1].split("## Reason codes")[0]
    shown = {
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    added = set(re.findall(r"`(\w+)`", section.split("`quarantine/` add")[1]))

    assert shown == set(record_schema(PLAIN))
    assert added == set(rejected_schema(PLAIN)) - set(record_schema(PLAIN))


def test_formats_lists_the_columns_of_the_logprobs() -> None:
    table = FORMATS.split("## Logprobs")[1].partition("| column |")[2]
    shown = [
        name
        for line in table.splitlines()
        if "|" in line
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]

    assert sorted(shown) == sorted(logprobs_schema())


def test_formats_lists_the_columns_of_the_judgements() -> None:
    table = FORMATS.split("## Judgements")[1].split("## Logprobs")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    shown = [name for line in rows for name in re.findall(r"`(\w+)`", line.split("|")[1])]

    assert sorted(shown) == sorted(judgements_schema())


def test_the_judge_page_shows_recipes_that_are_some() -> None:
    shown = re.findall(r"^```yaml\n(.*?)^```$", JUDGE, re.DOTALL | re.MULTILINE)
    teachers = {alias: yaml.safe_load(RECIPE)["teachers"]["qwen"] for alias in ("big", "other")}
    steps = [{"name": "answer", "prompt": "answer", "teacher": "big", "samples": 3}]
    source = {"inline": [{"instruction": "Name a colour."}]}

    plans = [
        api.plan(
            {
                "name": "shown",
                "use": ["train-general"],
                "source": source,
                "teachers": teachers,
                "steps": steps,
            }
            | yaml.safe_load(text)
        )
        for text in shown
    ]

    assert [[line.requests for line in plan.lines] for plan in plans] == [[3, 3, 3, 6], [3, 3, 3]]


def test_formats_lists_what_lies_in_a_run_folder(here: Workplace) -> None:
    table = FORMATS.split("## Run folder")[1].split("## Record")[0]
    shown = {path.split("/")[0] for path in re.findall(r"`([^`]+)`", "".join(first_cells(table)))}

    assert {path.name for path in here.run.iterdir()} <= shown


def first_cells(table: str) -> list[str]:
    return [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]


def test_every_listed_reason_code_is_in_the_code() -> None:
    table = FORMATS.split("## Reason codes")[1]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "synthgen").rglob("*.py"))

    for line in table.splitlines():
        if not line.startswith("| `"):
            continue
        for reason in re.findall(r"`([\w:]+?)(?::?\.\.\.)?`", line.split("|")[2].split(";")[0]):
            ending = "" if reason.endswith("_") else '[":]'
            assert re.search(f'"(?:{reason}|{reason.removeprefix("pii_")}){ending}', code), reason
