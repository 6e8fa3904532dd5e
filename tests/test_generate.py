"""`generate` from recipe to published dataset, against the loopback teacher."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import polars as pl
import pytest

import synthgen
from synthgen.api import Options
from synthgen.dataset import verify
from tests.loopback import Body, Loopback, answer_text, refuse
from tests.runs import (
    cli,
    graded,
    published_bytes,
    questions,
    recipe,
    records,
    save,
    save_prompt,
    save_rows,
    teacher,
)

JUDGED = {"chain": "none", "judge": {"teacher": "qwen", "keep": ">= 3"}}


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=graded) as running:
        yield running


def test_a_run_ends_published_with_exit_0(server: Loopback, tmp_path: Path) -> None:
    result = cli("generate", save(tmp_path / "r.yaml", recipe(server)), "-o", tmp_path / "run", "--json")

    assert result.code == 0
    assert result.json["counts"]["accepted"] == len(records(tmp_path / "run")) == 5
    assert verify(tmp_path / "run") == []


def test_the_record_holds_the_question_and_the_answer(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(recipe(server, rows=1), tmp_path / "run")

    (record,) = records(tmp_path / "run")
    question = questions(1)[0]["instruction"]
    sent = server.requests[0].body
    assert record["messages"] == [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer_text(sent, 40)},
    ]
    assert (record["teacher"], record["route"], record["served_model"]) == ("qwen", "self-hosted", "qwen3")


def test_candidates_of_every_fate_add_up(tmp_path: Path) -> None:
    def script(_number: int, body: Body) -> object:
        return refuse(400) if "number 1?" in str(body) else None

    rows = [*questions(4), questions(1)[0], {"text": "no instruction here"}]
    source = save_rows(tmp_path / "rows.jsonl", rows)
    source.write_text(source.read_text() + "{broken\n")
    with Loopback(
        reply=lambda body: "Sure." if "number 2?" in str(body) else answer_text(body, 30), script=script
    ) as s:  # type: ignore[arg-type]
        changes = {
            "source": {"jsonl": str(source), "license": "own"},
            "refine": {"chain": str(strict_chain(tmp_path))},
        }
        report = synthgen.generate(recipe(s, **changes), tmp_path / "run")

    assert report.exit_code == 0
    assert report.counts == {
        "planned": 7, "accepted": 2, "rejected": 4, "failed": 1, "quarantined": 0, "surplus": 0, "pending": 0,
    }  # fmt: skip
    assert report.reasons == {
        "ask/invalid": 1, "dedup:exact/exact_duplicate": 1, "filter:length/length_short": 1, "render/missing_field": 1, "source/malformed_row": 1,
    }  # fmt: skip
    assert sorted(f"{row['stage']}/{row['reason']}" for row in records(tmp_path / "run", "rejected")) == [
        "dedup:exact/exact_duplicate", "filter:length/length_short", "render/missing_field", "source/malformed_row",
    ]  # fmt: skip


def strict_chain(folder: Path) -> Path:
    chain = {"name": "long", "version": 1, "description": "d", "licence": "Apache-2.0"}
    return save(folder / "long.yaml", {**chain, "steps": [{"length": {"min_chars": 10}}]})


def test_the_same_command_again_sends_nothing_and_writes_the_same_bytes(
    server: Loopback, tmp_path: Path
) -> None:
    content = recipe(server, refine=JUDGED)
    synthgen.generate(content, tmp_path / "run")
    before, asked = published_bytes(tmp_path / "run"), len(server.requests)

    report = synthgen.generate(content, tmp_path / "run")

    assert (report.sent, len(server.requests), report.exit_code) == (0, asked, 0)
    assert published_bytes(tmp_path / "run") == before


@pytest.mark.parametrize("target", [None, 12])
def test_no_byte_depends_on_the_size_of_a_wave(server: Loopback, tmp_path: Path, target: int | None) -> None:
    """Rows repeat each other over wave borders, the judge rejects some, a target cuts."""
    source = {"inline": questions(30) + questions(4)}
    settings = {"source": source, "refine": JUDGED, "output": {"test_share": 0.2, "rows_per_shard": 4}}
    if target:
        settings["target"] = target

    results = []
    for wave in (1, 7, 256):
        report = synthgen.generate(recipe(server, wave=wave, **settings), tmp_path / str(wave))
        assert report.exit_code == 0
        results.append(published_bytes(tmp_path / str(wave)))

    assert results[0] == results[1] == results[2]


def test_no_byte_depends_on_concurrency_or_on_the_order_of_arrival(tmp_path: Path) -> None:
    number = count(1)

    def script(_number: int, _body: Body) -> object:
        return refuse(429, retry_after="0.02") if next(number) % 3 == 0 else None

    with Loopback(reply=graded) as calm, Loopback(reply=graded, script=script) as busy:  # type: ignore[arg-type]
        one = {"qwen": teacher(calm, limits={"concurrency": 1})}
        synthgen.generate(recipe(calm, 20, teachers=one, refine=JUDGED), tmp_path / "one")
        synthgen.generate(recipe(busy, 20, refine=JUDGED), tmp_path / "many")

    assert [r.body for r in busy.requests] != [r.body for r in calm.requests]
    assert published_bytes(tmp_path / "one") == published_bytes(tmp_path / "many")


def test_small_waves_leave_no_place_of_a_lane_empty(tmp_path: Path) -> None:
    with Loopback(hold=64) as server:  # fewer at a time get no answer
        wide = {"qwen": teacher(server, limits={"concurrency": 64})}
        synthgen.generate(recipe(server, 64, teachers=wide, wave=4), tmp_path / "run")

    assert server.max_in_flight == 64


def test_a_list_fans_out_and_every_item_passes_the_next_step(tmp_path: Path) -> None:
    def reply(body: Body) -> str:
        text = str(body["messages"])
        return (
            "1. Why is it so?\n2. How does it work?\n3. Where is it?"
            if "different questions" in text
            else answer_text(body, 20)
        )

    steps = [
        {"name": "ask", "prompt": "topic_questions", "teacher": "qwen", "with": {"n": "3"}},
        {"name": "answer", "prompt": "answer", "teacher": "qwen"},
    ]
    with Loopback(reply=reply) as server:
        content = recipe(server, source={"inline": [{"topic": "tides"}]}, steps=steps)
        report = synthgen.generate(content, tmp_path / "run")

    rows = records(tmp_path / "run")
    assert report.counts["planned"] == 3
    assert [row["messages"][0]["content"] for row in rows] == [
        "Why is it so?",
        "How does it work?",
        "Where is it?",
    ]
    assert len({row["id"] for row in rows}) == 3
    assert len({row["row"] for row in rows}) == 1


def test_a_list_without_items_is_one_rejected_candidate(tmp_path: Path) -> None:
    steps = [
        {"name": "ask", "prompt": "topic_questions", "teacher": "qwen"},
        {"name": "answer", "prompt": "answer", "teacher": "qwen"},
    ]
    with Loopback(reply=lambda _body: "[]") as server:
        report = synthgen.generate(
            recipe(server, source={"inline": [{"topic": "tides"}]}, steps=steps), tmp_path / "run"
        )

    assert report.counts["planned"] == report.counts["rejected"] == 1
    assert report.reasons == {"parse/empty_list": 1}


def test_sections_of_a_reply_become_fields_of_the_row(tmp_path: Path) -> None:
    reply = "<instruction>What is it?</instruction>\n<response>It is a stone.</response>"
    steps = [{"name": "read", "prompt": "document_qa", "teacher": "qwen"}]
    with Loopback(reply=lambda _body: reply) as server:
        synthgen.generate(
            recipe(server, source={"inline": [{"document": "A stone."}]}, steps=steps), tmp_path / "run"
        )

    (record,) = records(tmp_path / "run")
    assert [m["content"] for m in record["messages"]] == ["What is it?", "It is a stone."]


def test_a_json_reply_with_a_schema_is_asked_for_checked_and_split_into_fields(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "size": {"type": "integer", "minimum": 1}},
        "required": ["city", "size"],
    }
    prompt = save_prompt(
        tmp_path / "city.yaml",
        "A city near {{ place }}, as JSON.",
        reply={"json": schema},
        inputs=["place"],
        outputs=["city", "size"],
    )
    steps = [{"name": "city", "prompt": str(prompt), "teacher": "qwen", "structured": True}]
    replies = {"Rome": '{"city": "Ostia", "size": 3}', "Oslo": '{"city": "Moss", "size": 0}'}
    with Loopback(
        reply=lambda body: next(text for place, text in replies.items() if place in str(body["messages"]))
    ) as server:
        content = recipe(
            server,
            source={"inline": [{"place": place} for place in replies]},
            steps=steps,
            output={"record": {"user": "City near {{ place }}?", "assistant": "{{ city }} ({{ size }})"}},
        )
        report = synthgen.generate(content, tmp_path / "run")

    assert server.requests[0].body["response_format"]["json_schema"]["schema"] == schema  # type: ignore[index, call-overload]
    assert [row["messages"][1]["content"] for row in records(tmp_path / "run")] == ["Ostia (3)"]
    assert report.reasons == {"parse/schema": 1}


def test_a_rewritten_field_is_what_the_next_step_and_the_record_see(tmp_path: Path) -> None:
    def reply(body: Body) -> str:
        text = str(body["messages"])
        return "It is blue." if "Rewritten" in text else "Rewritten question?"

    steps = [
        {"name": "vary", "prompt": "evolve_instruction", "teacher": "qwen"},
        {"name": "answer", "prompt": "answer", "teacher": "qwen"},
    ]
    with Loopback(reply=reply) as server:
        synthgen.generate(recipe(server, rows=1, steps=steps), tmp_path / "run")

    (record,) = records(tmp_path / "run")
    assert [m["content"] for m in record["messages"]] == ["Rewritten question?", "It is blue."]
    (first, _) = records(tmp_path / "run", "lineage")
    assert json.loads(first["fields"])["instruction"] == "Rewritten question?"


SAMPLED = [{"name": "answer", "prompt": "answer", "teacher": "qwen", "samples": 3, "sampling": {"seed": 10}}]


def test_samples_are_separate_records_of_one_request(server: Loopback, tmp_path: Path) -> None:
    report = synthgen.generate(recipe(server, rows=2, steps=SAMPLED), tmp_path / "run")

    rows = records(tmp_path / "run")
    assert (report.sent, len(rows)) == (2, 6)
    assert [row["sample"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert len({row["messages"][1]["content"] for row in rows}) == 6


def test_samples_bought_one_by_one_make_the_same_dataset(server: Loopback, tmp_path: Path) -> None:
    synthgen.generate(recipe(server, rows=2, steps=SAMPLED), tmp_path / "together")
    teachers = {"qwen": teacher(server, samples_per_request=1)}

    report = synthgen.generate(recipe(server, rows=2, steps=SAMPLED, teachers=teachers), tmp_path / "alone")

    rows = records(tmp_path / "alone")
    assert (report.sent, rows) == (6, records(tmp_path / "together"))
    assert sorted(int(str(seen.body["seed"])) for seen in server.requests[2:]) == [10, 10, 11, 11, 12, 12]


def test_two_identical_draws_are_two_requests(server: Loopback, tmp_path: Path) -> None:
    content = recipe(
        server, source={"inline": questions(1) * 2}, refine={"chain": "none", "dedup": {"near": None}}
    )

    report = synthgen.generate(content, tmp_path / "run")

    assert report.sent == 2
    assert report.reasons == {"dedup:exact/exact_duplicate": 1}


def test_weights_choose_the_teacher_of_a_row_for_good(server: Loopback, tmp_path: Path) -> None:
    def run(rows: list[dict[str, str]], name: str) -> dict[str, str]:
        teachers = {"big": teacher(server, model="qwen3-big"), "small": teacher(server, model="qwen3-small")}
        steps = [{"name": "answer", "prompt": "answer", "teacher": {"big": 1, "small": 3}}]
        content = recipe(server, source={"inline": rows}, teachers=teachers, steps=steps)
        synthgen.generate(content, tmp_path / name)
        return {row["row"]: row["teacher"] for row in records(tmp_path / name)}

    forward, backward = run(questions(80), "a"), run(questions(80)[::-1], "b")

    assert forward == backward
    assert 8 <= list(forward.values()).count("big") <= 32


def test_the_judge_is_asked_through_the_paid_path_and_decides(server: Loopback, tmp_path: Path) -> None:
    report = synthgen.generate(recipe(server, rows=20, refine=JUDGED), tmp_path / "run")

    kept, dropped = records(tmp_path / "run"), records(tmp_path / "run", "rejected")
    assert report.sent == len(server.payments) == 40
    assert {row["scores"][0]["name"] for row in kept} == {"judge"}
    assert all(row["scores"][0]["score"] >= 3 for row in kept)
    assert {row["reason"] for row in dropped} == {"judge_below"}
    assert all(row["score"] < 3 for row in dropped)


def test_a_judge_that_only_selects_leaves_no_score_in_the_dataset(server: Loopback, tmp_path: Path) -> None:
    judge = {"teacher": "qwen", "keep": ">= 3", "ship_score": False}

    synthgen.generate(recipe(server, rows=20, refine={"chain": "none", "judge": judge}), tmp_path / "run")

    rows = records(tmp_path / "run") + records(tmp_path / "run", "rejected")
    assert len(rows) == 20
    assert all(row["scores"] == [] and row.get("score") is None for row in rows)


def test_an_unreadable_judgement_rejects_as_unjudged(tmp_path: Path) -> None:
    def reply(body: Body) -> str:
        return "No idea." if "Rate how well" in str(body) else answer_text(body, 20)

    with Loopback(reply=reply) as server:
        report = synthgen.generate(recipe(server, rows=2, refine=JUDGED), tmp_path / "run")

    assert report.reasons == {"judge/unjudged": 2}


async def test_generate_works_inside_a_running_event_loop(server: Loopback, tmp_path: Path) -> None:
    report = synthgen.generate(recipe(server, rows=2), tmp_path / "run")

    assert report.counts["accepted"] == 2


def test_interrupting_a_notebook_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    """The interrupt reaches the caller's thread, the run is in another one."""

    async def cell(server: Loopback) -> None:
        def interrupt() -> None:
            while server.in_flight < 5:
                threading.Event().wait(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            synthgen.generate(recipe(server), tmp_path / "run")
        thread.join()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()
    try:
        with Loopback(hold=1000) as server:
            loop.run_until_complete(cell(server))
    finally:
        loop.close()
        signal.signal(signal.SIGINT, before)
    with Loopback() as server:
        assert synthgen.generate(recipe(server), tmp_path / "run").counts["accepted"] == 5


def test_ask_only_publishes_nothing_and_a_later_run_asks_nothing(server: Loopback, tmp_path: Path) -> None:
    path, run = save(tmp_path / "r.yaml", recipe(server)), tmp_path / "run"

    first = cli("generate", path, "-o", run, "--ask-only")
    asked = len(server.requests)

    assert (first.code, asked) == (0, 5)
    assert not (run / "manifest.json").exists()
    assert not (run / "data").exists()
    assert cli("generate", path, "-o", run).code == 0
    assert len(server.requests) == asked


def test_ask_only_filters_nothing_and_still_sees_the_wrong_model(tmp_path: Path) -> None:
    strict = {
        "chain": str(
            save(
                tmp_path / "c.yaml", {"name": "c", "version": 1, "steps": [{"length": {"min_chars": 10_000}}]}
            )
        )
    }

    with Loopback() as server, Loopback(served_model="gpt-4o") as other:
        asked = synthgen.generate(
            recipe(server, refine=strict), tmp_path / "a", options=Options(ask_only=True)
        )
        wrong = synthgen.generate(recipe(other), tmp_path / "b", options=Options(ask_only=True))

    assert (asked.refined, asked.counts["accepted"], asked.counts["planned"]) == (False, 5, 5)
    assert (wrong.counts["quarantined"], wrong.counts["planned"]) == (5, 5)


def test_ask_only_with_a_target_filters_to_know_when_it_is_met(server: Loopback, tmp_path: Path) -> None:
    report = synthgen.generate(recipe(server, target=2), tmp_path / "run", options=Options(ask_only=True))

    assert (report.refined, report.counts["accepted"]) == (True, 2)
    assert not (tmp_path / "run" / "data").exists()


def test_all_records_of_a_source_row_are_on_one_side_of_the_split(server: Loopback, tmp_path: Path) -> None:
    steps = [{"name": "answer", "prompt": "answer", "teacher": "qwen", "samples": 3}]
    content = recipe(
        server,
        rows=30,
        steps=steps,
        output={"test_share": 0.3},
        refine={"chain": "none", "dedup": {"near": None}},
    )

    synthgen.generate(content, tmp_path / "run")

    sides: dict[str, set[str]] = {"train": set(), "test": set()}
    for side, rows in sides.items():
        rows |= set(pl.read_parquet(tmp_path / "run" / "data" / f"{side}-*.parquet")["row"])
    assert all(sides.values())
    assert not sides["train"] & sides["test"]


def test_failed_requests_are_kept_and_only_asked_again_on_demand(tmp_path: Path) -> None:
    broken = {"on": True}

    def script(_number: int, _body: Body) -> object:
        return refuse(400) if broken["on"] else None

    with Loopback(script=script) as server:  # type: ignore[arg-type]
        content = recipe(server, rows=2)
        first = synthgen.generate(content, tmp_path / "run")
        broken["on"] = False
        second = synthgen.generate(content, tmp_path / "run")
        third = synthgen.generate(content, tmp_path / "run", options=Options(retry_failed=True))

    assert (first.exit_code, first.counts["failed"]) == (0, 2)
    assert (second.sent, second.counts["failed"]) == (0, 2)
    assert (third.sent, third.counts["accepted"]) == (2, 2)


def test_a_row_whose_answer_comes_from_another_model_is_quarantined(tmp_path: Path) -> None:
    with Loopback(served_model="gpt-4o") as server:
        report = synthgen.generate(recipe(server, rows=2), tmp_path / "run")

    assert (report.exit_code, report.counts["quarantined"]) == (0, 2)
    assert [row["reason"] for row in records(tmp_path / "run", "quarantine")] == ["served_identity"] * 2
    assert records(tmp_path / "run") == []


def test_a_served_name_listed_in_the_recipe_is_the_teacher(tmp_path: Path) -> None:
    with Loopback(served_model="lab/qwen-3") as server:
        teachers = {"qwen": teacher(server, served_as=["lab/qwen-3"])}
        report = synthgen.generate(recipe(server, rows=2, teachers=teachers), tmp_path / "run")

    assert report.counts["accepted"] == 2


def test_a_record_judged_by_another_model_is_quarantined(tmp_path: Path) -> None:
    with Loopback(reply=graded) as server, Loopback(reply=graded, served_model="gpt-4o") as other:
        teachers = {"qwen": teacher(server), "judge": teacher(other)}
        refine = {"chain": "none", "judge": {"teacher": "judge", "keep": ">= 1"}}
        report = synthgen.generate(recipe(server, rows=2, teachers=teachers, refine=refine), tmp_path / "run")

    assert report.counts["quarantined"] == 2
    assert {row["reason"] for row in records(tmp_path / "run", "quarantine")} == {"judge_identity"}
