"""A recipe that asks for what a server was proved to lack stops before it spends; doubt stops nothing."""

import json
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from synthgen import api
from synthgen.asking.doctor import Diagnosis, Finding, Verdict
from synthgen.pipeline.abilities import BELIEVED_DAYS, Need, missing
from tests.doctored import Doctored
from tests.loopback import Loopback
from tests.runs import Result, cli, recipe, save, save_prompt, teacher

LIAR = Doctored("structured")


def structured_recipe(server: Loopback, folder: Path, **changes: object) -> Path:
    """A recipe whose one step asks for structured output, in its line 20 or so."""
    prompt = save_prompt(
        folder / "city.yaml",
        "A city near {{ instruction }}.",
        reply={"json": {"type": "object", "properties": {"response": {"type": "string"}}}},
        inputs=["instruction"],
        outputs=["response"],
    )
    steps = [{"name": "city", "prompt": str(prompt), "teacher": "qwen", "structured": True}]
    return save(folder / "r.yaml", recipe(server, steps=steps, teachers={"qwen": teacher(server, **changes)}))


def examined(server: Loopback, folder: Path, **changes: object) -> tuple[Path, Result]:
    path = structured_recipe(server, folder, **changes)
    return path, cli("doctor", path, "-o", folder / "run", "--json")


def line_of(path: Path, text: str) -> int:
    return next(n for n, line in enumerate(path.read_text().splitlines(), start=1) if text in line)


def test_one_server_of_a_pool_that_lacks_it_is_enough(tmp_path: Path) -> None:
    with Doctored().server() as one, LIAR.server() as two:
        path = structured_recipe(one, tmp_path, base_urls=[one.url, two.url], base_url=None)
        path.write_text(path.read_text().replace("    base_url: null\n", ""))
        cli("doctor", path, "-o", tmp_path / "run")

        result = cli("plan", path, "-o", tmp_path / "run")

    assert result.code == 2
    assert f"(qwen3 at 127.0.0.1:{two.port}) lacks this" in result.err


def test_more_logprobs_than_a_server_gives_stop_at_their_line(tmp_path: Path) -> None:
    with Doctored(k_max=5).server() as server:
        steps = [{"name": "answer", "prompt": "answer", "teacher": "qwen", "capture": {"logprobs": 8}}]
        path = save(tmp_path / "r.yaml", recipe(server, steps=steps))
        cli("doctor", path, "-o", tmp_path / "run")

        result = cli("generate", path, "-o", tmp_path / "run")
        fewer = cli("plan", path, "-o", tmp_path / "run", "--set", "steps.0.capture.logprobs=5")

    assert (result.code, fewer.code) == (2, 0)
    assert f"{path}:{line_of(path, 'logprobs: 8')}: steps[0].capture.logprobs: teacher 'qwen'" in result.err
    assert "up to 5 a token" in result.err


@pytest.mark.parametrize(("together", "samples", "code"), [(4, 4, 2), ("auto", 4, 0), (1, 4, 0), (4, 1, 0)])
def test_samples_that_must_come_together_stop_where_they_do_not(
    together: object, samples: int, code: int, tmp_path: Path
) -> None:
    with Doctored("n").server() as server:
        steps = [{"name": "answer", "prompt": "answer", "teacher": "qwen", "samples": samples}]
        teachers = {"qwen": teacher(server, samples_per_request=together)}
        path = save(tmp_path / "r.yaml", recipe(server, steps=steps, teachers=teachers))

        result = cli("doctor", path, "-o", tmp_path / "run")

    assert result.code == code
    assert ("teachers.qwen.samples_per_request: teacher 'qwen'" in result.err) is (code == 2)


@pytest.mark.parametrize("verb", ["plan", "generate"])
def test_a_proved_lack_stops_before_anything_is_sent(verb: str, tmp_path: Path) -> None:
    with LIAR.server() as server:
        path, _ = examined(server, tmp_path)
        asked = len(server.requests)

        result = cli(verb, path, "-o", tmp_path / "run")

        assert len(server.requests) == asked
    assert result.code == 2
    assert f"{path}:{line_of(path, 'structured: true')}: steps[0].structured: teacher 'qwen'" in result.err
    assert "accepted and ignored: '9'" in result.err
    assert "ask another teacher or drop the key" in result.err


def test_the_doctor_itself_says_what_the_recipe_will_meet(tmp_path: Path) -> None:
    with LIAR.server() as server:
        _, result = examined(server, tmp_path)

    assert result.code == 2
    assert "steps[0].structured: teacher 'qwen'" in result.err
    assert "steps[0].structured: teacher 'qwen'" in result.json["problem"]


def test_a_server_that_was_repaired_is_believed_again(tmp_path: Path) -> None:
    server = Doctored("structured")
    with server.server() as running:
        path, before = examined(running, tmp_path)
        server.ignored = ()

        after = cli("doctor", path, "-o", tmp_path / "run")

        assert (before.code, after.code) == (2, 0)
        assert cli("plan", path, "-o", tmp_path / "run").code == 0


def test_another_run_folder_knows_nothing_of_it(tmp_path: Path) -> None:
    with LIAR.server() as server:
        path, _ = examined(server, tmp_path)

        assert cli("plan", path, "-o", tmp_path / "other").code == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model": "qwen/qwen3-8b"}, 0),
        ({"sampling": {"max_tokens": 200, "extra": {"guided_decoding_backend": "xgrammar"}}}, 0),
        ({"price": {"input": 1, "output": 2}}, 2),
        ({"limits": {"rpm": 60}}, 2),
    ],
)
def test_a_proof_holds_for_the_teacher_it_was_made_of(
    change: Mapping[str, object], code: int, tmp_path: Path
) -> None:
    with LIAR.server() as server:
        examined(server, tmp_path)

        path = structured_recipe(server, tmp_path, **change)

        assert cli("plan", path, "-o", tmp_path / "run").code == code


@pytest.mark.parametrize(("days", "code"), [(0, 2), (BELIEVED_DAYS, 2), (BELIEVED_DAYS + 1, 0)])
def test_a_proof_is_believed_for_a_week(days: int, code: int, tmp_path: Path) -> None:
    with LIAR.server() as server:
        path, _ = examined(server, tmp_path)
        stored = tmp_path / "run" / "doctor.json"
        content = json.loads(stored.read_text())
        content["diagnoses"][0]["day"] = (date.today() - timedelta(days)).isoformat()  # noqa: DTZ011  # as the code
        stored.write_text(json.dumps(content))

        assert cli("plan", path, "-o", tmp_path / "run").code == code


def test_a_run_may_begin_in_the_folder_the_doctor_made(tmp_path: Path) -> None:
    with Doctored().server() as server:
        path = save(tmp_path / "r.yaml", recipe(server, 2))
        assert cli("doctor", path, "-o", tmp_path / "run").code == 0

        assert cli("generate", path, "-o", tmp_path / "run").code == 0
        assert cli("doctor", path, "-o", tmp_path / "run").code == 0
        assert cli("generate", path, "-o", tmp_path / "run").code == 0


def test_costs_of_all_examinations_add_up(tmp_path: Path) -> None:
    priced = {"price": {"input": 3.0, "output": 15.0}}
    with Doctored().server() as server:
        spent = [examined(server, tmp_path, **priced)[1].json["spent_usd"] for _ in range(2)]

    stored = json.loads((tmp_path / "run" / "doctor.json").read_text())
    assert stored["spent_usd"] == pytest.approx(sum(spent))
    assert len(stored["diagnoses"]) == 1


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}', '{"colour": "red"}'])
@pytest.mark.parametrize("verb", ["plan", "generate", "doctor"])
def test_a_file_that_is_not_ours_is_neither_read_nor_replaced(
    verb: str, content: str, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "doctor.json").write_text(content)
    with Loopback() as server:
        path = save(tmp_path / "r.yaml", recipe(server))

        result = cli(verb, path, "-o", tmp_path / "run")

        assert server.requests == server.pages_read == []
    assert result.code == 6
    assert "doctor.json" in result.err
    assert (tmp_path / "run" / "doctor.json").read_text() == content


# ---- the rule by itself


def proved(probe: str, verdict: Verdict, value: Any = None) -> Diagnosis:
    return Diagnosis("t", "vllm", "m", "r", "h", "d", "2026-11-22", (Finding(probe, verdict, "said", value),))


@pytest.mark.parametrize("ability", ["structured", "tools", "logprobs", "n", "reasoning"])
@pytest.mark.parametrize(
    ("verdict", "stops"), [("yes", False), ("unknown", False), ("error", False), ("no", True)]
)
def test_only_a_no_stops(ability: Any, verdict: Verdict, stops: bool) -> None:
    assert (missing(Need("t", ability, ()), proved(ability, verdict)) is not None) is stops


@pytest.mark.parametrize(
    ("asked", "refused", "stops"), [(5, 6, False), (6, 6, True), (20, 6, True), (20, None, False)]
)
def test_more_logprobs_than_were_refused_stop(asked: int, refused: int | None, stops: bool) -> None:
    diagnosis = proved("logprobs", "yes", {"k_max": 5, "k_refused": refused, "token_ids": None})

    assert (missing(Need("t", "logprobs", (), asked), diagnosis) is not None) is stops


@pytest.mark.parametrize(
    ("free", "auto", "stops"), [(True, "no", True), (True, "unknown", False), (False, "no", False)]
)
def test_tools_that_a_server_calls_only_by_name_stop_a_free_choice(
    free: bool, auto: str, stops: bool
) -> None:
    diagnosis = proved("tools", "yes", {"auto": auto})

    assert (missing(Need("t", "tools", (), free=free), diagnosis) is not None) is stops


def test_tools_that_a_server_refuses_stop_at_their_line(tmp_path: Path) -> None:
    function = {"name": "look_up", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    with Doctored(refuses=("tools",)).server() as server:
        steps = [{"name": "answer", "prompt": "answer", "teacher": "qwen", "tools": tools}]
        path = save(tmp_path / "r.yaml", recipe(server, steps=steps))
        cli("doctor", path, "-o", tmp_path / "run")

        result = cli("generate", path, "-o", tmp_path / "run")

    assert result.code == 2
    assert f"{path}:{line_of(path, 'tools:')}: steps[0].tools: teacher 'qwen'" in result.err
    assert "HTTP 400: tools is not supported here" in result.err


def test_what_was_never_examined_stops_nothing() -> None:
    assert missing(Need("t", "tools", ()), proved("chat", "yes")) is None


def test_the_function_plan_reads_the_same_folder(tmp_path: Path) -> None:
    with LIAR.server() as server:
        path, _ = examined(server, tmp_path)

    with pytest.raises(api.SynthgenError, match="lacks this"):
        api.plan(path, tmp_path / "run")
