"""`synthgen policy export`: a published dataset described for other uses, and the check a trainer calls."""

from datetime import date
from pathlib import Path

import orjson
import pytest

from synthgen import api
from synthgen.errors import PolicyError
from synthgen.policy import Ask, Part, gate, load_registry
from synthgen.policy.attest import entry_toml
from synthgen.policy.model import Override
from synthgen.recipe.model import Actor
from tests.described import DAY, LLAMA, made, rows_file
from tests.runs import cli, records


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of Llama 3.3, declared for training alone."""
    folder = tmp_path_factory.mktemp("exported")
    return made(folder / "out", rows_file(folder / "in.jsonl"), use=("train-general",))


@pytest.mark.parametrize(
    ("what", "file"),
    [
        ("card", "README.md"),
        ("croissant", "croissant.json"),
        ("spdx", "spdx.json"),
        ("obligations", "OBLIGATIONS.md"),
        ("policy", "POLICY.json"),
    ],
)
def test_export_of_an_unchanged_folder_is_what_was_published(dataset: Path, what: str, file: str) -> None:
    result = cli("policy", "export", dataset, what)

    assert result.code == 0
    assert result.out == (dataset / file).read_text()


def test_a_wider_use_is_decided_anew(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "OBLIGATIONS.md"

    result = cli("policy", "export", dataset, "obligations", "--use", "publish-weights", "-o", out)

    assert result.code == 0
    assert "NAME-PREFIX:Llama" in out.read_text()
    assert "NAME-PREFIX" not in (dataset / "OBLIGATIONS.md").read_text()


def test_a_use_that_is_not_permitted_is_not_described(tmp_path: Path) -> None:
    out = made(
        tmp_path / "out",
        rows_file(tmp_path / "in.jsonl"),
        use=("train-task-internal:classifier",),
        origin="gpt-5.4@openai-api",
        row_license="own",
    )

    result = cli("policy", "export", out, "card", "--use", "publish-weights")

    assert result.code == 4
    assert result.out == ""
    assert "review for use publish-weights" in result.err


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    assert cli("policy", "export", tmp_path, "card").code == 2


def test_an_unknown_document_is_refused_with_what_there_is(dataset: Path) -> None:
    result = cli("policy", "export", dataset, "croisant")

    assert result.code == 2
    assert "croissant" in result.err


def test_spdx_of_a_student_with_a_wrong_name_is_refused(dataset: Path) -> None:
    result = cli("policy", "export", dataset, "spdx", "--student", "acme/acme-7b")

    assert result.code == 4
    assert "must begin with 'Llama'" in result.err


def test_trainer_learns_what_goes_along_with_the_weights(dataset: Path) -> None:
    owed = api.policy_student(dataset, "acme/Llama-acme-7b")

    assert "NAME-PREFIX:Llama" in owed


def test_trainer_may_not_save_under_a_name_that_breaks_a_duty(dataset: Path) -> None:
    with pytest.raises(PolicyError, match="must begin with 'Llama'"):
        api.policy_student(dataset, "acme/acme-7b")


def test_a_student_that_stays_inside_may_have_any_name(dataset: Path) -> None:
    assert "NAME-PREFIX:Llama" not in api.policy_student(dataset, "acme-7b", distributed=False)


def test_weights_of_rows_that_must_stay_inside_cannot_be_distributed(tmp_path: Path) -> None:
    out = made(
        tmp_path / "out",
        rows_file(tmp_path / "in.jsonl"),
        use=("train-task-internal:classifier",),
        origin="gpt-5.4@openai-api",
        row_license="own",
    )

    with pytest.raises(PolicyError, match="publish-weights"):
        api.policy_student(out, "acme-7b")


def test_a_report_stays_a_report_in_every_export(tmp_path: Path) -> None:
    out = made(
        tmp_path / "out",
        rows_file(tmp_path / "in.jsonl"),
        origin="gpt-5.4@openai-api",
        row_license="own",
        report_only=True,
    )

    card = cli("policy", "export", out, "card").out

    assert "policy_enforced=false" in card
    assert "synthgen:policy-not-enforced" in card
    assert orjson.loads(cli("policy", "export", out, "policy").out)["enforced"] is False


def test_rows_that_must_not_be_distributed_stay_out_of_a_published_dataset(tmp_path: Path) -> None:
    source = tmp_path / "in"
    rows_file(source / "a.jsonl", 10, teacher="gpt-5.4", route="openai-api", id_="a")
    lines = (source / "a.jsonl").read_text().replace("number", "letter")
    (source / "a.jsonl").write_text(lines)
    rows_file(source / "b.jsonl", 10, teacher="Qwen/Qwen3-8B", route="self-hosted")

    out = made(
        tmp_path / "out",
        source,
        use=("train-task-internal:classifier", "publish-dataset"),
        origin=None,
        origin_column="origin",
        row_license="own",
        on_deny="drop",
    )

    assert {row["teacher"] for row in records(out)} == {"Qwen/Qwen3-8B"}
    assert {row["teacher"] for row in records(out, "quarantine")} == {"gpt-5.4"}
    assert "NO-DISTRIBUTE" not in (out / "OBLIGATIONS.md").read_text()


def test_facts_about_the_user_are_those_of_the_publication(tmp_path: Path) -> None:
    out = made(
        tmp_path / "out", rows_file(tmp_path / "in.jsonl"), origin=LLAMA, actor=Actor(mau=7, territory="US")
    )

    assert orjson.loads(cli("policy", "export", out, "policy").out)["actor"]["mau"] == 7


def test_an_attestation_goes_along_with_what_it_permitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    use = "publish-dataset"
    part = Part("t", "foreign", "openai-api", "gpt-5.4")
    found = gate(load_registry(), [part], Ask((use,), Actor(mau=1, territory="US"), today=DAY))
    assert found.outcome == "review"
    rules = tuple(c.rule for c in found.parts[0].decision.citations if c.decision == "review")
    entry = Override(
        "attestation", rules, use, "The owner of the data has read the terms.", "A. B.", DAY, date(2027, 5, 1)
    )
    (tmp_path / "policy.lock.toml").write_text(entry_toml(entry))

    out = made(
        tmp_path / "out",
        rows_file(tmp_path / "in.jsonl"),
        use=(use,),
        origin="gpt-5.4@openai-api",
        row_license="own",
        actor=Actor(mau=1, territory="US"),
    )

    assert "attestation by A. B." in (out / "README.md").read_text()
    assert orjson.loads(cli("policy", "export", out, "policy").out)["overrides"][0]["who"] == "A. B."
