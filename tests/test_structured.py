"""Structured output: what each vendor is sent, and servers that accept a schema and ignore it."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from synthgen import api
from synthgen.asking.structured import SchemaWatch
from synthgen.asking.wire.anthropic_messages import AnthropicMessagesWire
from synthgen.asking.wire.schemas import narrowed
from synthgen.types import Completion, FinishReason, ToolCall
from tests.batch_server import BatchLoopback
from tests.loopback import HANG, Act, Body, Loopback
from tests.runs import cli, questions, recipe, save, save_prompt, teacher
from tests.test_ask import question
from tests.test_batches import PACE

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "size": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["city", "size"],
}
ROOT = Path(__file__).resolve().parent.parent
GOOD = '{"city": "Bonn", "size": 3}'


# Anthropic


def test_anthropic_is_sent_closed_objects_without_bounds() -> None:
    asked = replace(question(), response_schema=json.dumps(SCHEMA))

    sent = AnthropicMessagesWire().body(asked)["output_config"]

    assert sent == {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "size": {"type": "integer", "description": "(minimum: 1, maximum: 5)"},
                },
                "required": ["city", "size"],
                "additionalProperties": False,
            },
        }
    }


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        (
            {"type": "array", "minItems": 3, "items": {"type": "object", "properties": {}}},
            {
                "type": "array",
                "items": {"type": "object", "properties": {}, "additionalProperties": False},
                "description": "(minItems: 3)",
            },
        ),
        ({"type": "array", "minItems": 1}, {"type": "array", "minItems": 1}),
        ({"oneOf": [{"type": "null"}, {"const": 1}]}, {"anyOf": [{"type": "null"}, {"const": 1}]}),
        ({"type": "string", "format": "email"}, {"type": "string", "format": "email"}),
        (
            {"type": "string", "format": "regex", "description": "A pattern."},
            {"type": "string", "description": 'A pattern. (format: "regex")'},
        ),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"enum": [1]}}}, {"$ref": "#/$defs/a", "$defs": {"a": {"enum": [1]}}}),
        ({"type": "object", "properties": {"minimum": {"type": "integer"}}},
         {"type": "object", "properties": {"minimum": {"type": "integer"}}, "additionalProperties": False}),
        (True, True),
    ],
)  # fmt: skip
def test_what_anthropic_does_not_take_becomes_words(schema: Any, sent: Any) -> None:
    assert narrowed(schema) == sent


# Watching


def watched(*texts: str, finish: FinishReason = "stop", calls: tuple[ToolCall, ...] = ()) -> list[int | None]:
    watch, asked = SchemaWatch(), replace(question(), response_schema=json.dumps(SCHEMA))
    return [watch.broken_by("big", asked, Completion(text, finish, tool_calls=calls)) for text in texts]


def test_six_of_the_first_eight_are_too_many() -> None:
    assert watched(GOOD, "no", "no", GOOD, "no", "no", "", '{"city": 1}')[-1] == 6


def test_a_model_that_mostly_follows_is_left_alone() -> None:
    assert watched(*["no"] * 5, *[GOOD] * 3, *["no"] * 20) == [None] * 28


def test_answers_in_prose_around_the_object_count_as_kept() -> None:
    assert watched(*[f"Sure!\n```json\n{GOOD}\n```"] * 8) == [None] * 8


@pytest.mark.parametrize("finish", ["length", "refusal", "content_filter"])
def test_answers_that_were_cut_off_or_refused_say_nothing(finish: FinishReason) -> None:
    assert watched(*['{"city": "Bo'] * 20, finish=finish) == [None] * 20


def test_tool_calls_say_nothing() -> None:
    assert watched(*[""] * 20, calls=(ToolCall("1", "f", "{}"),)) == [None] * 20


def test_without_a_schema_nothing_is_watched() -> None:
    watch = SchemaWatch()

    assert [watch.broken_by("big", question(), Completion("no", "stop")) for _ in range(9)] == [None] * 9


def test_a_second_schema_is_watched_however_many_answers_of_the_first_were_right() -> None:
    watch = SchemaWatch()
    schemas = SCHEMA, {**SCHEMA, "title": "another"}
    first, second = (replace(question(), response_schema=json.dumps(schema)) for schema in schemas)
    seen = [watch.broken_by("big", first, Completion(GOOD, "stop")) for _ in range(9)]

    seen += [watch.broken_by("big", second, Completion("no", "stop")) for _ in range(6)]

    assert seen == [None] * 14 + [6]


# A run


def structured(tmp_path: Path, server: Loopback, **changes: object) -> Path:
    save_prompt(
        tmp_path / "city.yaml",
        "Name a city for: {{ instruction }}",
        reply={"json": SCHEMA},
        inputs=["instruction"],
        outputs=["city", "size"],
    )
    steps = [{"name": "city", "prompt": "city.yaml", "teacher": "qwen", "structured": True}]
    output = {"record": {"assistant": "{{ city }}"}}
    content = recipe(server, steps=steps, output=output, source={"inline": questions(60)}, **changes)
    content["teachers"]["qwen"]["limits"] = {"concurrency": 4}
    return save(tmp_path / "r.yaml", content)


def test_a_response_format_of_ones_own_does_not_go_with_a_schema(tmp_path: Path) -> None:
    own = {"sampling": {"max_tokens": 200, "extra": {"response_format": {"type": "json_object"}}}}
    server = Loopback()
    path = structured(tmp_path, server, teachers={"qwen": teacher(server, **own)})

    result = cli("plan", path)

    assert result.code == 2
    assert "r.yaml:" in result.err
    assert "steps[0].structured: sends a `response_format` of its own" in " ".join(result.err.split())


def test_a_server_that_ignores_the_schema_is_asked_no_further(tmp_path: Path) -> None:
    with Loopback(ignores=["response_format"]) as server:
        result = cli("generate", structured(tmp_path, server), "-o", tmp_path / "o")

    assert result.code == 3
    said = " ".join(result.err.split())
    assert "teacher qwen: schema_ignored: 127.0.0.1" in said
    assert "use a server that supports `response_format: json_schema`" in said
    assert 6 <= len(server.payments) <= 8 + 4


def test_a_vendor_that_ignores_the_schema_in_batches_gets_no_second_one(tmp_path: Path) -> None:
    with BatchLoopback(ignores=["response_format"]) as server:
        batched = teacher(server, provider="openai", mode="batch")
        path = structured(tmp_path, server, teachers={"qwen": batched}, target=8)
        report = api.generate(path, tmp_path / "o", options=api.Options(pace=PACE))

    assert (report.exit_code, len(server.batches)) == (3, 1)
    assert "schema_ignored" in str(report.problem)


def ignored(tmp_path: Path, server: Loopback) -> Path:
    """The recipe of a run that has found its server out."""
    path = structured(tmp_path, server)
    assert cli("generate", path, "-o", tmp_path / "o").code == 3
    return path


@pytest.mark.parametrize("verb", ["generate", "plan"])
def test_a_server_that_was_found_out_is_refused_before_anything_is_sent(tmp_path: Path, verb: str) -> None:
    with Loopback(ignores=["response_format"]) as server:
        path = ignored(tmp_path, server)
        paid = len(server.payments)

        again = cli(verb, path, "-o", tmp_path / "o")

    assert (again.code, len(server.payments)) == (2, paid)
    said = " ".join(again.err.split())
    assert "r.yaml:" in said
    assert "steps[0].structured" in said
    assert "of the first 8 structured answers" in said
    assert "schemas.json" in said


@pytest.mark.parametrize(
    "change",
    [
        ["--set", "steps.0.structured=false"],
        ["--set", "teachers.qwen.sampling.temperature=0.5"],
        ["--set", "teachers.qwen.model=another"],
    ],
    ids=["no schema", "other sampling", "other model"],
)
def test_what_has_changed_is_tried_again(tmp_path: Path, change: list[str]) -> None:
    with Loopback(ignores=["response_format"]) as server:
        path = ignored(tmp_path, server)
        paid = len(server.payments)

        cli("generate", path, "-o", tmp_path / "o", *change)

    assert len(server.payments) > paid


def test_another_schema_is_tried(tmp_path: Path) -> None:
    with Loopback(ignores=["response_format"]) as server:
        path = ignored(tmp_path, server)
        paid = len(server.payments)
        prompt = tmp_path / "city.yaml"
        prompt.write_text(prompt.read_text().replace("maximum: 5", "maximum: 6"))

        again = cli("generate", path, "-o", tmp_path / "o")

    assert again.code == 3
    assert len(server.payments) > paid


@pytest.mark.parametrize(("days", "code"), [(7, 2), (8, 3)])
def test_a_proof_is_believed_for_a_week(tmp_path: Path, days: int, code: int) -> None:
    with Loopback(ignores=["response_format"]) as server:
        path = ignored(tmp_path, server)
        stored = tmp_path / "o/schemas.json"
        content = json.loads(stored.read_text())
        day = date.today() - timedelta(days=days)  # noqa: DTZ011  # the user's day
        content["ignored"][0]["day"] = day.isoformat()
        stored.write_text(json.dumps(content))

        assert cli("generate", path, "-o", tmp_path / "o").code == code


def test_damaged_proofs_are_a_storage_error_that_names_the_file(tmp_path: Path) -> None:
    with Loopback(ignores=["response_format"]) as server:
        path = ignored(tmp_path, server)
        (tmp_path / "o/schemas.json").write_text("{")

        again = cli("generate", path, "-o", tmp_path / "o")

    assert again.code == 6
    assert "schemas.json: cannot be read" in " ".join(again.err.split())


def test_a_run_killed_while_it_drains_has_remembered_its_server(tmp_path: Path) -> None:
    def script(number: int, _body: Body) -> Act | None:
        return (
            HANG if number == 9 else None
        )  # in flight, with three others, when the sixth answer is one too many

    with Loopback(ignores=["response_format"], script=script) as server:
        path = structured(tmp_path, server)
        command = [sys.executable, "-m", "synthgen", "generate", str(path), "-o", str(tmp_path / "o")]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            while not (tmp_path / "o/schemas.json").exists():
                with pytest.raises(subprocess.TimeoutExpired):  # it is still running
                    process.wait(0.02)
        finally:
            process.kill()
            process.wait()
        paid = len(server.payments)

        again = cli("generate", path, "-o", tmp_path / "o")

    assert (again.code, len(server.payments)) == (2, paid)


def test_a_disk_that_cannot_remember_a_server_ends_the_run_as_storage(tmp_path: Path) -> None:
    (tmp_path / "o/.schemas.json.part").mkdir(parents=True)  # where the file would be written first

    with Loopback(ignores=["response_format"]) as server:
        result = cli("generate", structured(tmp_path, server), "-o", tmp_path / "o")

    assert result.code == 6
    assert "schemas.json" in " ".join(result.err.split())
    assert len(server.payments) <= 8 + 4


def test_what_was_paid_before_is_kept(tmp_path: Path) -> None:
    with Loopback(ignores=["response_format"]) as server:
        cli("generate", structured(tmp_path, server), "-o", tmp_path / "o")
        usage = json.loads((tmp_path / "o/usage.json").read_text())

    assert usage["total"]["requests"] == len(server.payments)


def test_a_server_that_keeps_to_the_schema_is_asked_to_the_end(tmp_path: Path) -> None:
    with Loopback() as server:
        result = cli("generate", structured(tmp_path, server), "-o", tmp_path / "o")

    assert (result.code, len(server.payments)) == (0, 60)


def test_a_model_that_writes_the_json_by_itself_needs_no_server_support(tmp_path: Path) -> None:
    def reply(_body: Body) -> str:
        return GOOD

    with Loopback(ignores=["response_format"], reply=reply) as server:
        result = cli("generate", structured(tmp_path, server), "-o", tmp_path / "o")

    assert (result.code, len(server.payments)) == (0, 60)
