"""What a run keeps when it is stopped, refused or cut short in unusual places."""

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import synthgen
from synthgen.asking.outcome import TransportFailure
from synthgen.asking.transport.aiohttp_transport import AiohttpTransport
from synthgen.asking.transport.endpoint import Endpoint
from synthgen.dataset import is_published, verify
from synthgen.dataset.staging import Staging
from synthgen.pipeline.verdicts import Counts
from tests.loopback import Loopback, refuse
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


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=graded) as running:
        yield running


def test_a_resume_that_cannot_ask_keeps_every_row_it_has_answers_for(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Loopback() as server:
        save(tmp_path / "r.yaml", recipe(server, wave=10, source={"inline": questions(60)}))
        assert cli("generate", tmp_path / "r.yaml", "-o", run).code == 0
    with Loopback(script=lambda _number, _body: refuse(401)) as server:
        more = [{"instruction": "A new one, in front?"}, *questions(60)]
        save(tmp_path / "r.yaml", recipe(server, wave=10, source={"inline": more}))
        result = cli("generate", tmp_path / "r.yaml", "-o", run, "--json")

    assert (result.code, result.json["counts"]["accepted"], result.json["counts"]["pending"]) == (3, 60, 1)
    assert len(records(run)) == 60


@pytest.mark.slow
def test_a_target_that_nothing_meets_is_sought_to_the_end_of_the_source(tmp_path: Path) -> None:
    # Each wave without a record halves what the next one is expected to bring: 1,100 of them are below every float.
    rows = [{"instruction": "Why?"}, *({"other": str(n)} for n in range(1100))]
    with Loopback(served_model="gpt-4o") as server:
        content = recipe(server, wave=1, target=10_000, source={"inline": rows})

        report = synthgen.generate(content, tmp_path / "run")

    assert (report.counts["quarantined"], report.counts["rejected"], report.exit_code) == (1, 1100, 3)


@pytest.mark.parametrize("lost", ["verdict", "row"])
def test_a_dataset_whose_accounting_does_not_add_up_is_not_published(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    if lost == "verdict":
        add = Counts.add
        monkeypatch.setattr(
            Counts,
            "add",
            lambda self, verdict: None if "number 3" in str(verdict.leaf.fields) else add(self, verdict),
        )
    else:
        stage = Staging.add
        monkeypatch.setattr(
            Staging,
            "add",
            lambda self, kind, frame: stage(self, kind, frame.head(4) if kind == "accepted" else frame),
        )

    with pytest.raises(synthgen.SynthgenError, match="accounting: "):
        synthgen.generate(recipe(server, rows=5), tmp_path / "run")

    assert not is_published(tmp_path / "run")


def test_a_record_with_a_blank_turn_is_a_reject_and_the_judge_never_sees_it(
    server: Loopback, tmp_path: Path
) -> None:
    rows = [{"instruction": "Why?", "shown": "Why?"}, {"instruction": "How?", "shown": " "}]
    content = recipe(
        server,
        source={"inline": rows},
        output={"record": {"user": "{{ shown }}"}},
        refine={"chain": "none", "judge": {"teacher": "qwen", "keep": ">= 1"}},
    )

    result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")

    assert (result.code, result.json["reasons"]) == (0, {"record/blank": 1})
    assert result.json["sent"] == 3


def test_a_disk_error_while_refining_lets_paid_requests_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> None:
        raise StorageError("no space left")

    from synthgen.errors import StorageError

    with Loopback(latency_s=0.05) as server:
        path = save(tmp_path / "r.yaml", recipe(server, 60, wave=5))
        with monkeypatch.context() as patch:
            patch.setattr(Staging, "add", refused)
            broken = cli("generate", path, "-o", tmp_path / "run", "--json")
        again = cli("generate", path, "-o", tmp_path / "run", "--json")

    assert (broken.code, again.code) == (6, 0)
    assert server.paid_twice == 0
    assert again.json["usage"]["lost"]["requests"] == 0


def test_a_disk_that_refuses_the_recipe_leaves_all_rows_pending(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> None:
        raise StorageError("no space left")

    from synthgen.errors import StorageError

    monkeypatch.setattr("synthgen.pipeline.runfolder.RunFolder.write_recipe", refused)

    result = cli("generate", save(tmp_path / "r.yaml", recipe(server)), "-o", tmp_path / "run", "--json")

    assert (result.code, result.json["counts"]["planned"], result.json["counts"]["pending"]) == (6, 5, 5)


def test_a_disk_that_refuses_in_the_middle_of_a_swap_leaves_the_earlier_dataset(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run = save(tmp_path / "r.yaml", recipe(server, 5)), tmp_path / "run"
    assert cli("generate", path, "-o", run).code == 0
    before = published_bytes(run)
    save(path, recipe(server, 8))
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.parent.name == "new" and self.name == "data":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        broken = cli("generate", path, "-o", run)

    assert broken.code == 6
    assert is_published(run)
    assert (published_bytes(run), verify(run)) == (before, [])


def test_text_of_an_unvetted_model_is_quarantined_also_when_it_does_not_parse(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}}}
    prompt = save_prompt(
        tmp_path / "label.yaml",
        "Label {{ instruction }}",
        reply={"json": schema},
        inputs=["instruction"],
        outputs=["label"],
    )
    with Loopback(served_model="someone-elses-model") as server:
        content = recipe(server, 2, steps=[{"name": "label", "prompt": str(prompt), "teacher": "qwen"}])
        content["output"] = {"record": {"assistant": "{{ label }}"}}
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")

    assert result.json["counts"]["quarantined"] == 2
    assert not (tmp_path / "run" / "rejected").exists()
    lineage = pl.read_parquet(tmp_path / "run" / "lineage")
    assert lineage["fields"].null_count() == lineage.height


def test_the_environment_never_enters_a_prompt(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2hunter2")
    content = recipe(server, source={"inline": [{"instruction": "What does echo ${MY_SECRET} print?"}]})

    assert cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run").code == 0

    assert "${MY_SECRET}" in str(server.requests[0].body)
    assert "hunter2" not in str(server.requests[0].body)


def test_a_value_from_the_environment_is_not_repeated_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Loopback
) -> None:
    monkeypatch.setenv("GATEWAY", "http://user:hunter2@127.0.0.1:1")
    content = recipe(server)
    content["teachers"]["qwen"]["base_url"] = "${GATEWAY}"

    result = cli("plan", save(tmp_path / "r.yaml", content))

    assert result.code == 2
    assert "hunter2" not in result.err


def test_filter_does_not_write_into_a_run_or_over_its_input(server: Loopback, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert cli("generate", save(tmp_path / "r.yaml", recipe(server)), "-o", tmp_path / name).code == 0
    rows = [{"prompt": "Why is the sky blue?", "completion": "Because air scatters blue light the most."}]
    (tmp_path / "mine").mkdir()
    save_rows(tmp_path / "mine" / "rows.jsonl", rows)
    before = published_bytes(tmp_path / "two")

    into_run = cli("filter", tmp_path / "one", "-o", tmp_path / "two")
    over_input = cli("filter", tmp_path / "mine", "-o", tmp_path / "mine")

    assert (into_run.code, over_input.code) == (2, 2)
    assert published_bytes(tmp_path / "two") == before


def test_a_cap_refuses_a_run_whose_earlier_answers_have_no_price(server: Loopback, tmp_path: Path) -> None:
    path, run = tmp_path / "r.yaml", tmp_path / "run"
    unpriced = recipe(server)
    del unpriced["teachers"]["qwen"]["price"]
    assert cli("generate", save(path, unpriced), "-o", run).code == 0
    priced = recipe(
        server, 6, teachers={"qwen": teacher(server, price={"input": 1, "output": 1})}, budget_usd=1
    )

    result = cli("generate", save(path, priced), "-o", run)

    assert (result.code, len(server.requests)) == (2, 5)
    assert "5 earlier answers" in result.err


def test_keeping_reasoning_later_buys_nothing_again(server: Loopback, tmp_path: Path) -> None:
    path, run = tmp_path / "r.yaml", tmp_path / "run"
    assert cli("generate", save(path, recipe(server)), "-o", run).code == 0
    step = {"name": "answer", "prompt": "answer", "teacher": "qwen", "capture": {"reasoning": True}}

    result = cli("generate", save(path, recipe(server, steps=[step])), "-o", run, "--json")

    assert (result.code, result.json["sent"]) == (0, 0)
    assert "reasoning_content" in records(run)[0]["messages"][0]


def test_flags_of_the_chain_stay_with_foreign_records(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "How do I reach you?",
            "completion": "Write to maria.kovacs@uni-graz.at, we answer every day.",
        }
    ]
    path = save_rows(tmp_path / "rows.jsonl", rows)

    assert cli("filter", path, "-o", tmp_path / "out").code == 0

    assert any("email" in flag for flag in records(tmp_path / "out")[0]["flags"])


def test_a_run_can_be_shown_and_recut_while_its_first_session_was_cut_short(
    server: Loopback, tmp_path: Path
) -> None:
    path, run = save(tmp_path / "r.yaml", recipe(server, 5)), tmp_path / "run"
    report = synthgen.generate(path, run, options=synthgen.api.Options(ask_only=True))

    recut = cli("filter", run, "-o", tmp_path / "out", "--json")

    assert report.exit_code == 0
    assert recut.json["counts"]["accepted"] == 5


async def test_a_proxys_password_is_in_no_message_and_its_refusal_is_no_payment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    proxy = await asyncio.start_server(refuse_all, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://me:hunter2@127.0.0.1:{port}")
    transport = AiohttpTransport(Endpoint("https://teacher.example/v1", "openai"))

    async with proxy:
        with pytest.raises(TransportFailure) as caught:
            await transport.post("/chat/completions", {}, timeout_s=5)
        await transport.close()

    assert "hunter2" not in str(caught.value)
    assert (caught.value.reason, caught.value.maybe_paid) == ("connect", False)
