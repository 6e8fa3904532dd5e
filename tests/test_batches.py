"""Batches: the same dataset as live, half the price, and nothing lost or bought twice, whatever becomes of a batch.

The server speaks both vendors' endpoints over a real socket, the clients are the vendors' own SDKs.
"""

import json
import math
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from synthgen import api
from synthgen.asking.batch import Pace
from synthgen.journal import JournalIndex
from synthgen.journal.ledger import Account
from synthgen.journal.verify import Verification, verify
from tests.batch_server import BatchLoopback
from tests.loopback import Loopback
from tests.runs import bill_usd, cli, graded, published_bytes, recipe, records, save, teacher

PACE = Pace(poll_s=0.002, longest_poll_s=0.02, linger_s=0.15, settle_s=0.1)
PRICE = {"input": 1000.0, "output": 2000.0}
VENDORS = pytest.mark.parametrize("provider", ["openai", "anthropic"])


def batch_recipe(folder: Path, server: Loopback, rows: int = 5, **changes: Any) -> Path:
    """One question a row, asked in batches; `changes` replace keys of the teacher, or of the recipe below `recipe`."""
    others = changes.pop("recipe", {})
    settings = {"provider": "openai", "mode": "batch", "price": PRICE, **changes}
    content = recipe(server, rows, **{"teachers": {"qwen": teacher(server, **settings)}, **others})
    return save(folder / "recipe.yaml", content)


def run(path: Path, out: Path, **options: Any) -> api.Report:
    """Generate with polls of milliseconds."""
    return api.generate(path, out, options=api.Options(pace=PACE, **options))


def proof(out: Path) -> Verification:
    """What the journal says."""
    return verify(out / "journal")


@VENDORS
def test_a_batch_gives_the_bytes_that_live_requests_give(tmp_path: Path, provider: str) -> None:
    with BatchLoopback() as server:
        live = run(batch_recipe(tmp_path, server, provider=provider, mode="live"), tmp_path / "live")
        sent_live = server.live_requests

        batched = run(batch_recipe(tmp_path, server, provider=provider), tmp_path / "batched")

    assert live.exit_code == batched.exit_code == 0
    assert published_bytes(tmp_path / "live") == published_bytes(tmp_path / "batched")
    assert [len(batch.rows) for batch in server.batches] == [5]
    assert server.live_requests == sent_live


@VENDORS
def test_answers_of_a_batch_cost_half_and_the_plan_says_so(tmp_path: Path, provider: str) -> None:
    with BatchLoopback() as server:
        path = batch_recipe(tmp_path, server, provider=provider)
        promised = api.plan(path)
        full = api.plan(path, overrides=["teachers.qwen.mode=live"])

        report = run(path, tmp_path / "run")

    half = bill_usd(server, **PRICE) / 2
    assert math.isclose(report.usage["spent_usd"], half)  # type: ignore[index,call-overload,arg-type]
    assert [mode.mode for mode in promised.modes] == ["batch"]
    assert full.usd()[2] == pytest.approx(2 * promised.usd()[2])  # type: ignore[index]


@VENDORS
def test_the_journal_of_a_batch_holds_neither_losses_nor_double_payments(
    tmp_path: Path, provider: str
) -> None:
    with BatchLoopback() as server:
        run(batch_recipe(tmp_path, server, provider=provider), tmp_path / "run")

    found = proof(tmp_path / "run")
    assert (found.double_payments, found.possibly_paid, found.batches_under_way) == ([], [], [])
    assert found.entries == {"S": 5, "B": 3, "R": 5}


@VENDORS
def test_custom_ids_are_request_keys_and_nothing_else_of_the_row_is_sent(
    tmp_path: Path, provider: str
) -> None:
    with BatchLoopback() as server:
        run(batch_recipe(tmp_path, server, provider=provider), tmp_path / "run")

    entries = (tmp_path / "run" / "journal" / "000001.jsonl").read_bytes().splitlines()
    keys = {orjson.loads(line[9:])["k"] for line in entries if b'"t":"R"' in line}
    assert set(server.batched) == keys


def test_an_openai_batch_names_its_run(tmp_path: Path) -> None:
    with BatchLoopback() as server:
        run(batch_recipe(tmp_path, server), tmp_path / "run")

    metadata = server.batches[0].metadata
    assert metadata["synthgen_run"] == "small"
    assert {len(metadata["synthgen_batch"]), len(metadata["synthgen_content"])} == {32}


@VENDORS
def test_of_an_expired_batch_only_the_missing_rows_are_asked_again(tmp_path: Path, provider: str) -> None:
    def row(number: int, _body: object) -> str | None:
        return "expired" if number in (2, 4) else None

    with BatchLoopback(
        row=row, end=lambda batch: "expired" if len(batch.rows) == 5 else "completed"
    ) as server:
        report = run(batch_recipe(tmp_path, server, provider=provider), tmp_path / "run")

    first, second = (batch.ids for batch in server.batches)
    assert second == [first[1], first[3]]
    assert (report.exit_code, len(server.payments), server.paid_twice) == (0, 5, 0)


@VENDORS
def test_rows_that_failed_or_are_absent_go_into_the_next_batch(tmp_path: Path, provider: str) -> None:
    acts = {1: "broken", 3: "absent"}
    with BatchLoopback(row=lambda number, _body: acts.get(number)) as server:
        report = run(batch_recipe(tmp_path, server, provider=provider), tmp_path / "run")

    assert [len(batch.rows) for batch in server.batches] == [5, 2]
    assert (report.exit_code, server.paid_twice, report.counts["accepted"]) == (0, 0, 5)


@VENDORS
def test_a_refused_row_fails_for_good_and_costs_nothing(tmp_path: Path, provider: str) -> None:
    with BatchLoopback(row=lambda number, _body: "refused" if number == 2 else None) as server:
        report = run(batch_recipe(tmp_path, server, provider=provider), tmp_path / "run")

    assert (report.counts["accepted"], report.counts["failed"]) == (4, 1)
    assert report.reasons == {"ask/invalid": 1}
    assert math.isclose(report.usage["spent_usd"], bill_usd(server, **PRICE) / 2)  # type: ignore[index,call-overload,arg-type]


@VENDORS
def test_where_credit_runs_out_answers_are_kept_and_the_rest_is_asked_later(
    tmp_path: Path, provider: str
) -> None:
    with BatchLoopback(row=lambda number, _body: "quota" if number in (3, 4, 5) else None) as server:
        path = batch_recipe(tmp_path, server, provider=provider)

        stopped = run(path, tmp_path / "run")
        finished = run(path, tmp_path / "run")

    assert (stopped.exit_code, stopped.counts["pending"]) == (3, 3)
    assert "quota" in str(stopped.problem)
    assert [len(batch.rows) for batch in server.batches] == [5, 3]
    assert (finished.exit_code, server.paid_twice, len(server.payments)) == (0, 0, 5)


def test_an_unusable_answer_is_kept_aside_counted_and_asked_again(tmp_path: Path) -> None:
    with BatchLoopback(row=lambda number, _body: "junk" if number == 1 else None) as server:
        report = run(batch_recipe(tmp_path, server), tmp_path / "run")

    assert report.exit_code == 0
    assert [len(batch.rows) for batch in server.batches] == [5, 1]
    assert proof(tmp_path / "run").entries["X"] == 1


@pytest.mark.parametrize(("good", "end", "code"), [(1, "failed", 0), (0, "pending", 3)])
def test_an_unusable_answer_is_bought_in_three_batches(
    tmp_path: Path, good: int, end: str, code: int
) -> None:
    with BatchLoopback(row=lambda number, _body: "junk" if number > good else None) as server:
        report = run(batch_recipe(tmp_path, server, good + 1), tmp_path / "run")

    assert [len(batch.rows) for batch in server.batches] == [good + 1, 1, 1]
    assert (report.exit_code, report.counts[end]) == (code, 1)
    assert ("nobody got an answer in 3 batches" in str(report.problem)) == (code == 3)


@VENDORS
def test_results_nobody_asked_for_are_counted_and_change_nothing(tmp_path: Path, provider: str) -> None:
    with BatchLoopback(foreign=True) as server:
        report = run(batch_recipe(tmp_path, server, provider=provider), tmp_path / "run")

    assert report.counts["accepted"] == 5
    ends = [line for line in _batch_entries(tmp_path / "run") if line["state"] == "ended"]
    assert [end["counts"]["unknown"] for end in ends] == [1]


def _batch_entries(out: Path) -> list[Any]:
    lines = (out / "journal" / "000001.jsonl").read_bytes().splitlines()
    return [entry for entry in (orjson.loads(line[9:]) for line in lines) if entry["t"] == "B"]


def test_a_batch_that_fails_validation_stops_its_teacher_with_the_vendors_words(tmp_path: Path) -> None:
    problem = {"code": "model_not_found", "message": "no such model here", "line": 1}
    with BatchLoopback(failing=lambda _batch: problem) as server:
        report = run(batch_recipe(tmp_path, server), tmp_path / "run")

    assert (report.exit_code, report.counts["pending"]) == (3, 5)
    assert "no such model here" in str(report.problem)
    assert (len(server.batches), report.usage["spent_usd"]) == (1, 0.0)  # type: ignore[index,call-overload]


def test_a_line_that_fails_validation_costs_only_its_row(tmp_path: Path) -> None:
    def failing(batch: Any) -> Any:
        bad = {"code": "invalid_request", "message": "line 2 is wrong", "line": 2}
        return bad if len(batch.rows) == 5 else None

    with BatchLoopback(failing=failing) as server:
        report = run(batch_recipe(tmp_path, server), tmp_path / "run")

    assert (report.counts["accepted"], report.counts["failed"]) == (4, 1)


def test_a_full_queue_makes_batches_smaller_instead_of_rows_fail(tmp_path: Path) -> None:
    def failing(batch: Any) -> Any:
        full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
        return full if len(batch.rows) > 2 else None

    with BatchLoopback(failing=failing) as server:
        report = run(batch_recipe(tmp_path, server), tmp_path / "run")

    assert (report.exit_code, report.counts["accepted"]) == (0, 5)
    assert [len(batch.rows) for batch in server.batches] == [5, 2, 2, 1]


@VENDORS
def test_a_wrong_key_stops_before_anything_is_bought(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG_KEY", "sk-wrong-wrong-wrong")
    with BatchLoopback(at=lambda point: 401 if point.startswith("POST") else None) as server:
        path = batch_recipe(tmp_path, server, provider=provider, api_key_env="WRONG_KEY")

        report = run(path, tmp_path / "run")

    assert (report.exit_code, report.counts["pending"], server.batches) == (3, 5, [])
    assert "auth" in str(report.problem)
    assert "sk-wrong" not in str(report.problem)
    assert proof(tmp_path / "run").batches_under_way == []


@VENDORS
def test_a_batch_whose_creation_was_answered_by_a_gateway_is_found_not_created_again(
    tmp_path: Path, provider: str
) -> None:
    statuses = iter([502])

    def at(point: str) -> int | None:
        return next(statuses, None) if point == "created" else None

    with BatchLoopback(at=at) as server:
        report = run(batch_recipe(tmp_path, server, provider=provider), tmp_path / "run")

    assert (report.exit_code, len(server.batches), len(server.payments)) == (0, 1, 5)


def test_a_cap_counts_half_prices_and_splits_the_rows_into_batches_that_fit(tmp_path: Path) -> None:
    with BatchLoopback() as server:
        plenty = run(batch_recipe(tmp_path, server, rows=6), tmp_path / "plenty")
        spent = float(plenty.usage["spent_usd"])  # type: ignore[index,call-overload,arg-type]
        before = len(server.batches)

        # Reservations are larger than costs: not all six fit at once under twice what they cost.
        path = batch_recipe(tmp_path, server, rows=6, recipe={"budget_usd": 2 * spent})
        report = run(path, tmp_path / "capped")

    sizes = [len(batch.rows) for batch in server.batches[before:]]
    assert (report.exit_code, sum(sizes)) == (0, 6)
    assert len(sizes) > 1


def test_a_cap_that_is_reached_leaves_rows_pending(tmp_path: Path) -> None:
    with BatchLoopback() as server:
        path = batch_recipe(tmp_path, server, rows=6, recipe={"budget_usd": 0.35})

        report = run(path, tmp_path / "run")

    assert report.exit_code == 5
    assert report.counts["accepted"] + report.counts["pending"] == 6
    assert float(report.usage["spent_usd"]) <= 0.35  # type: ignore[index,call-overload,arg-type]


def test_no_wait_submits_and_the_same_command_collects(tmp_path: Path) -> None:
    with BatchLoopback(polls=2) as server:
        path = batch_recipe(tmp_path, server)

        submitted = run(path, tmp_path / "run", wait=False)
        shown = api.show(tmp_path / "run")
        still = run(path, tmp_path / "run", wait=False)
        done = run(path, tmp_path / "run", wait=False)

    assert [submitted.exit_code, still.exit_code, done.exit_code] == [3, 3, 0]
    assert "batch_1" in str(submitted.problem)
    assert "batch_1" in shown.batches[0]  # type: ignore[union-attr]
    assert (len(server.batches), len(server.payments)) == (1, 5)


def test_what_is_under_way_is_not_bought_live_when_the_recipe_changes_its_mode(tmp_path: Path) -> None:
    with BatchLoopback(polls=1) as server:
        run(batch_recipe(tmp_path, server), tmp_path / "run", wait=False)

        report = run(batch_recipe(tmp_path, server, mode="live"), tmp_path / "run")

    assert (report.exit_code, server.live_requests, len(server.payments)) == (0, 0, 5)


def test_no_wait_ends_also_where_more_rows_are_under_way_than_a_live_teacher_may_hold(tmp_path: Path) -> None:
    with BatchLoopback(polls=1000) as server:
        run(batch_recipe(tmp_path, server, rows=100), tmp_path / "run", wait=False)
        live = batch_recipe(tmp_path, server, rows=100, mode="live", limits={"concurrency": 1})

        report = run(live, tmp_path / "run", wait=False)

    assert (report.exit_code, report.counts["pending"], server.live_requests) == (3, 100, 0)


@VENDORS
def test_cancel_keeps_what_was_answered_and_the_rest_is_asked_later(tmp_path: Path, provider: str) -> None:
    def row(number: int, _body: object) -> str | None:
        return "cancelled" if number in (4, 5) else None

    with BatchLoopback(row=row, polls=100) as server:
        path = batch_recipe(tmp_path, server, provider=provider)
        run(path, tmp_path / "run", wait=False)

        cancelled = api.cancel(tmp_path / "run", pace=PACE)

        assert server.cancelled == ["batch_1"]
        assert [(batch.answered, batch.pending) for batch in cancelled.batches] == [(3, 2)]
        assert cancelled.batches[0].usd == pytest.approx(bill_usd(server, **PRICE) / 2)
        usage = json.loads((tmp_path / "run" / "usage.json").read_text())
        assert usage["spent_usd"] == pytest.approx(cancelled.batches[0].usd)
        assert api.cancel(tmp_path / "run", pace=PACE).batches == ()
        server._polls = 1
        report = run(path, tmp_path / "run")

    assert [len(batch.rows) for batch in server.batches] == [5, 2]
    assert (report.exit_code, server.paid_twice) == (0, 0)


def test_a_batch_cancelled_at_the_vendor_is_not_submitted_again_by_itself(tmp_path: Path) -> None:
    with BatchLoopback(end=lambda _batch: "cancelled", row=lambda _n, _b: "cancelled") as server:
        report = run(batch_recipe(tmp_path, server), tmp_path / "run")

    assert (report.exit_code, report.counts["pending"], len(server.batches)) == (3, 5, 1)


@VENDORS
def test_a_judge_in_batches_gets_all_judgements_in_one(tmp_path: Path, provider: str) -> None:
    with BatchLoopback(reply=graded) as server:
        judged = {"refine": {"chain": "none", "judge": {"teacher": "qwen", "keep": ">= 2"}}, "wave": 2}
        live = batch_recipe(tmp_path, server, 6, provider=provider, mode="live", recipe=judged)
        run(live, tmp_path / "live")

        report = run(batch_recipe(tmp_path, server, 6, provider=provider, recipe=judged), tmp_path / "run")

    assert report.exit_code == 0
    assert [len(batch.rows) for batch in server.batches] == [6, 6]
    assert published_bytes(tmp_path / "live") == published_bytes(tmp_path / "run")


def test_a_later_step_in_batches_waits_for_all_answers_of_the_first(tmp_path: Path) -> None:
    steps = [
        {"name": "vary", "prompt": "evolve_instruction", "teacher": "qwen"},
        {"name": "label", "prompt": "answer", "teacher": "qwen"},
    ]
    with BatchLoopback() as server:
        report = run(batch_recipe(tmp_path, server, 6, recipe={"steps": steps, "wave": 2}), tmp_path / "run")

    assert report.exit_code == 0
    assert [len(batch.rows) for batch in server.batches] == [6, 6]


def test_a_target_asks_for_what_it_needs_in_one_batch(tmp_path: Path) -> None:
    with BatchLoopback() as server:
        report = run(batch_recipe(tmp_path, server, 20, recipe={"target": 9, "wave": 4}), tmp_path / "run")

    assert (report.exit_code, report.counts["accepted"]) == (0, 9)
    assert [len(batch.rows) for batch in server.batches] == [9]


def test_a_large_plan_is_split_at_the_vendors_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthgen.asking.batch.openai_batches import OpenAIBatches

    monkeypatch.setattr(OpenAIBatches, "most_requests", 4)
    with BatchLoopback() as server:
        report = run(batch_recipe(tmp_path, server, 10), tmp_path / "run")

    assert sorted(len(batch.rows) for batch in server.batches) == [2, 4, 4]
    assert (report.exit_code, len(records(tmp_path / "run"))) == (0, 10)


@pytest.mark.parametrize(
    ("rows", "changes", "mode"),
    [
        (1000, {}, "batch"),
        (999, {}, "live"),
        (1000, {"target": 10}, "live"),
        (500, {"steps": [{"name": "a", "prompt": "answer", "teacher": "qwen", "samples": 2}]}, "batch"),
        (
            1000,
            {
                "steps": [
                    {"name": "a", "prompt": "evolve_instruction", "teacher": "qwen"},
                    {"name": "b", "prompt": "answer", "teacher": "qwen"},
                ]
            },
            "live",
        ),
    ],
)
def test_auto_takes_a_batch_where_the_plan_is_large_and_nobody_waits(
    tmp_path: Path, rows: int, changes: dict[str, object], mode: str
) -> None:
    with BatchLoopback() as server:
        promised = api.plan(batch_recipe(tmp_path, server, rows, mode="auto", recipe=changes))

    assert [(choice.mode, bool(choice.why)) for choice in promised.modes] == [(mode, True)]


def test_refusals_of_everything_stop_the_teacher_instead_of_failing_every_row(tmp_path: Path) -> None:
    with BatchLoopback(row=lambda _number, _body: "refused") as server:
        report = run(batch_recipe(tmp_path, server, 20), tmp_path / "run")

    assert (report.exit_code, report.counts["failed"], report.counts["pending"]) == (3, 0, 20)
    assert "this request is wrong" in str(report.problem)


def test_results_the_vendor_has_deleted_count_as_possibly_paid_and_are_asked_again(tmp_path: Path) -> None:
    gone = "GET /files/output-batch_1/content"
    with BatchLoopback(at=lambda point: 404 if point == gone else None) as server:
        report = run(batch_recipe(tmp_path, server), tmp_path / "run")

    found = proof(tmp_path / "run")
    assert (report.exit_code, len(server.batches), found.entries["R"]) == (0, 2, 5)
    assert [(send.reason, send.answered) for send in found.possibly_paid] == [("batch_lost", True)] * 5
    assert report.usage["lost"]["requests"] == 5  # type: ignore[index,call-overload]
    assert found.possibly_paid_usd > 0


def test_a_server_without_batch_endpoints_is_named_as_such(tmp_path: Path) -> None:
    with BatchLoopback(at=lambda point: 404 if point == "POST /files" else None) as server:
        report = run(batch_recipe(tmp_path, server), tmp_path / "run")

    assert (report.exit_code, report.counts["pending"]) == (3, 5)
    assert "no batch endpoints" in str(report.problem)


def test_what_is_under_way_at_a_server_the_recipe_has_left_is_not_bought_at_another(tmp_path: Path) -> None:
    with BatchLoopback() as left, BatchLoopback() as server:
        run(batch_recipe(tmp_path, left), tmp_path / "run", wait=False)
        moved = batch_recipe(tmp_path, server)

        waiting = run(moved, tmp_path / "run")
        given_up = api.cancel(tmp_path / "run", pace=PACE)
        report = run(moved, tmp_path / "run")

    assert (waiting.exit_code, waiting.counts["pending"]) == (3, 5)
    assert "no teacher of the recipe" in waiting.warnings[-1]
    assert "possibly paid" in str(given_up.problem)
    assert (report.exit_code, len(server.payments)) == (0, 5)


def test_money_at_a_server_the_recipe_has_left_ends_a_capped_run_instead_of_stalling_it(
    tmp_path: Path,
) -> None:
    with BatchLoopback() as left, BatchLoopback() as server:
        run(batch_recipe(tmp_path, left), tmp_path / "run", wait=False)
        moved = batch_recipe(tmp_path, server, rows=6, mode="live", recipe={"budget_usd": 1.3})

        report = run(moved, tmp_path / "run")

    assert (report.exit_code, report.counts["pending"], server.live_requests) == (5, 6, 0)


def test_no_wait_ends_where_the_cap_leaves_no_room_for_another_batch(tmp_path: Path) -> None:
    with BatchLoopback() as server:
        path = batch_recipe(tmp_path, server, rows=6, recipe={"budget_usd": 0.6})

        report = run(path, tmp_path / "run", wait=False)

    assert (report.exit_code, report.counts["pending"], len(server.batches)) == (5, 6, 1)
    assert "under way" in str(report.problem)


def test_a_live_teacher_goes_on_while_another_waits_for_its_batch(tmp_path: Path) -> None:
    def teachers(server: Loopback) -> dict[str, Any]:
        batched = teacher(server, provider="openai", mode="batch", price=PRICE)
        return {"qwen": batched, "quick": teacher(server, model="qwen3-quick", hf="Qwen/Qwen3-8B")}

    steps = [{"name": "answer", "prompt": "answer", "teacher": {"qwen": 1, "quick": 1}}]
    with BatchLoopback() as server:
        changes = {"teachers": teachers(server), "steps": steps}
        report = run(save(tmp_path / "r.yaml", recipe(server, 12, **changes)), tmp_path / "run")

    [batch] = server.batches
    assert 0 < len(batch.rows) < 12
    assert (report.exit_code, server.live_requests + len(batch.rows)) == (0, 12)


def test_no_credential_of_the_environment_reaches_a_server_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_ORG_ID"):
        monkeypatch.setenv(name, "sk-not-for-everybody")
    seen: list[str] = []
    with BatchLoopback(headers=lambda headers: seen.extend(headers.values())) as server:
        for provider in ("openai", "anthropic"):
            run(batch_recipe(tmp_path, server, provider=provider), tmp_path / provider)

    assert seen
    assert not [value for value in seen if "sk-not-for-everybody" in value]


@VENDORS
def test_the_credential_goes_with_every_call_and_into_no_file(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_KEY", "sk-the-secret-itself")
    seen: list[str] = []
    name = "x-api-key" if provider == "anthropic" else "authorization"
    with BatchLoopback(headers=lambda headers: seen.append(headers[name])) as server:
        run(batch_recipe(tmp_path, server, provider=provider, api_key_env="BATCH_KEY"), tmp_path / "run")

    assert set(seen) == {"sk-the-secret-itself" if provider == "anthropic" else "Bearer sk-the-secret-itself"}
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [path for path in files if b"sk-the-secret-itself" in path.read_bytes()]


def test_the_command_line_submits_shows_verifies_and_cancels(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with BatchLoopback(polls=100) as server:
        path = batch_recipe(tmp_path, server)

        assert "in batches, at half price: the recipe says so" in cli("plan", path).out
        submitted = cli("generate", path, "-o", out, "--no-wait")
        shown, verified = cli("show", out), cli("journal", "verify", out)
        cancelled, again = cli("cancel", out), cli("cancel", out, "--json")

    assert (submitted.code, cancelled.code, again.code) == (3, 0, 0)
    for text in (submitted.err, shown.out, cancelled.err):
        assert "batch batch_1 of teacher qwen: 5 requests, until 20" in text
    assert "in batches under way" in verified.out
    assert "it uses the replies collected so far" in " ".join(shown.out.split())
    assert "batch_1" in cancelled.out
    assert "the next generate uses them" in " ".join(cancelled.out.split())
    assert again.json["batches"] == []


def test_an_open_batch_survives_the_sealing_of_its_segment(tmp_path: Path) -> None:
    with BatchLoopback() as server:
        path = batch_recipe(tmp_path, server)
        run(path, tmp_path / "run", wait=False)
        account = JournalIndex(tmp_path / "run" / "journal")._account

        assert Account.from_json(orjson.loads(orjson.dumps(account.as_json()))) == account
        assert [len(batch.requests) for batch in account.batches.values()] == [5]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"provider": "vllm"}, "mode"),
        ({"base_url": "http://127.0.0.1:9/v1beta/openai"}, "ends with /v1"),
        (
            {"route": "openrouter", "base_url": "https://openrouter.ai/api/v1"},
            "penRouter has no batch endpoints",
        ),
    ],
)
def test_a_recipe_that_cannot_be_asked_in_batches_says_so(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    with Loopback() as server, pytest.raises(api.SynthgenError, match=said):
        api.plan(batch_recipe(tmp_path, server, **settings))


def test_captured_logprobs_come_through_a_batch_also_when_it_is_collected_later(tmp_path: Path) -> None:
    step = {"name": "a", "prompt": "answer", "teacher": "qwen", "capture": {"logprobs": 2}}
    with BatchLoopback() as server:
        live = batch_recipe(tmp_path, server, mode="live", recipe={"steps": [step]})
        run(live, tmp_path / "live")
        path = batch_recipe(tmp_path, server, recipe={"steps": [step]})

        run(path, tmp_path / "run", wait=False)
        api.cancel(tmp_path / "run", pace=PACE)
        report = run(path, tmp_path / "run")

    assert (report.exit_code, len(server.batches)) == (0, 1)
    captured = [pl.read_parquet(tmp_path / name / "logprobs" / "*.parquet") for name in ("live", "run")]
    assert captured[0].equals(captured[1])
    assert len(captured[1]) == 5


def test_each_sample_is_a_request_of_its_own_in_a_batch(tmp_path: Path) -> None:
    step = {"name": "a", "prompt": "answer", "teacher": "qwen", "samples": 3}
    with BatchLoopback() as server:
        report = run(batch_recipe(tmp_path, server, recipe={"steps": [step]}), tmp_path / "run")

    assert [len(batch.rows) for batch in server.batches] == [15]
    assert not [body for _, body in server.batches[0].rows if "n" in body]
    assert report.counts["planned"] == 15
