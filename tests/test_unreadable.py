"""Replies that a step cannot read: all of the first ones stop the teacher, and what was read of them is said at the end."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import Body, Loopback, answer_text
from tests.runs import Recipe, cli, recipe, save, save_prompt

JSON_REPLY = {"json": {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}}


def labels(tmp_path: Path, server: Loopback, rows: int, **step: Any) -> Recipe:
    """One label a row, as JSON."""
    prompt = save_prompt(
        tmp_path / "label.yaml",
        "Label {{ instruction }}",
        reply=JSON_REPLY,
        inputs=["instruction"],
        outputs=["label"],
    )
    steps = [{"name": "label", "prompt": str(prompt), "teacher": "qwen", **step}]
    content = recipe(server, rows, steps=steps, output={"record": {"assistant": "{{ label }}"}})
    content["teachers"]["qwen"]["limits"] = {"concurrency": 4}
    return content


def readable(number: int) -> Callable[[Body], str]:
    """JSON for every question whose number ends in less than `number`; words for the others."""

    def reply(body: Body) -> str:
        asked = re.search(r"number (\d+)", str(body["messages"]))
        assert asked is not None
        return '{"label": "one"}' if int(asked[1]) % 10 < number else answer_text(body, 5)

    return reply


def test_a_teacher_none_of_whose_first_replies_can_be_read_stops(tmp_path: Path) -> None:
    with Loopback(reply=readable(0)) as server:
        path = save(tmp_path / "r.yaml", labels(tmp_path, server, 200))
        result = cli("generate", path, "-o", tmp_path / "run", "--json")
        paid = len(server.payments)
        again = cli("generate", path, "-o", tmp_path / "run", "--json")

    problem = result.json["problem"]
    assert result.code == 3
    assert 20 <= paid < 80  # with what was answered while the twentieth was being stored
    assert result.json["counts"]["pending"] == 200 - paid
    assert "step label: 20 of 20 replies of qwen could not be read as the prompt 'label' wants" in problem
    assert "parse/not_json" in problem
    assert f"synthgen show {tmp_path / 'run'} --row " in problem
    assert (again.code, len(server.payments)) == (3, paid)


def test_the_command_it_names_shows_a_reply(tmp_path: Path) -> None:
    with Loopback(reply=readable(0)) as server:
        content = labels(tmp_path, server, 30)
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")

    named = result.json["problem"].split("--row ")[1].split("`")[0]
    shown = cli("show", tmp_path / "run", "--row", named)

    assert shown.code == 0
    assert "not_json" in shown.out


def test_on_unreadable_warn_goes_on_and_says_so(tmp_path: Path) -> None:
    with Loopback(reply=readable(0)) as server:
        content = labels(tmp_path, server, 40, on_unreadable="warn")
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")

    assert (result.code, len(server.payments)) == (0, 40)
    assert "20 of 20 replies of qwen could not be read" in " ".join(result.err.split())
    assert "40 of 40 replies of qwen could not be read" in str(result.json["warnings"])


@pytest.mark.parametrize(
    ("rows", "good", "warned"), [(6, 0, True), (4, 0, False), (30, 3, True), (30, 5, False)]
)
def test_a_run_that_could_read_next_to_nothing_says_so_at_its_end(
    tmp_path: Path, rows: int, good: int, warned: bool
) -> None:
    with Loopback(reply=readable(good)) as server:
        content = labels(tmp_path, server, rows)
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")

    assert (result.code, len(server.payments)) == (0, rows)
    assert ("could not be read" in str(result.json["warnings"])) == warned
