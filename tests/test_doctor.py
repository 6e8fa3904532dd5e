"""What the doctor proves: honest servers pass, liars are found out, and nothing is sent or spent unasked."""

import asyncio
import io
import json
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen import api
from synthgen.asking import Budget
from synthgen.asking.connect import connect
from synthgen.asking.doctor import Diagnosis, Finding
from synthgen.asking.doctor.caller import Caller
from synthgen.asking.doctor.logprobs import K_LIMIT, next_k
from synthgen.asking.doctor.probes import find_limits
from synthgen.asking.doctor.questions import CHAT, LOGPROBS
from synthgen.asking.providers import RemoteTeacher
from synthgen.errors import BudgetReached, RunLocked
from synthgen.journal import lock_run
from synthgen.pipeline.abilities import read_record
from synthgen.pipeline.doctor import DoctorOptions, diagnose
from synthgen.pipeline.resolve import resolve
from synthgen.pipeline.runfolder import RunFolder
from tests.doctored import VLLM_PAGES, Doctored, models, page
from tests.loopback import ECHO_KEY, HANG, Act, Body, Loopback, refuse
from tests.runs import Result, cli, recipe, save, teacher

KEY = "sk-very-secret-0123456789abcdef"
PRICE = {"input": 3.0, "output": 15.0}


def examine(server: Loopback, folder: Path, *words: object, **changes: object) -> Result:
    """`synthgen doctor` over a recipe whose one teacher is the server."""
    path = save(folder / "r.yaml", recipe(server, teachers={"qwen": teacher(server, **changes)}))
    return cli("doctor", path, "-o", folder / "run", "--json", *words)


def findings(result: Result) -> dict[str, dict[str, Any]]:
    (diagnosis,) = result.json["diagnoses"]
    return {finding["probe"]: finding for finding in diagnosis["findings"]}


def verdicts(result: Result) -> dict[str, str]:
    return {probe: finding["verdict"] for probe, finding in findings(result).items()}


# ---- a server that can everything

COMMON = {
    "reachable": "yes",
    "key": "yes",
    "model": "yes",
    "chat": "yes",
    "usage": "yes",
    "limits": "yes",
    "reasoning": "unknown",
    "system": "yes",
    "stop": "yes",
    "max_tokens": "yes",
    "seed": "yes",
    "structured": "yes",
    "tools": "yes",
    "n": "yes",
    "logprobs": "yes",
}
OF_PROVIDER = {
    "openai": {**COMMON, "max_completion_tokens": "yes"},
    "vllm": {
        **COMMON,
        "max_completion_tokens": "yes",
        "structured_outputs": "yes",
        "version": "yes",
        "metrics": "yes",
    },
    "anthropic": {
        **COMMON,
        "seed": "no",
        "n": "no",
        "logprobs": "no",
        "max_tokens_required": "yes",
        "version_header": "yes",
        "count_tokens": "yes",
    },
}
MODEL_LIST = models("qwen3")["/v1/models"]


def versioned(headers: Mapping[str, str]) -> Act:
    """The list of models, for those who name a version of the API."""
    return MODEL_LIST if "anthropic-version" in headers else refuse(400)


ANTHROPIC_PAGES = {
    "/v1/models": versioned,
    "/v1/messages/count_tokens": page({"input_tokens": 11}),
}


@pytest.mark.parametrize("transport", ["auto", "aiohttp", "sdk"])
@pytest.mark.parametrize("provider", OF_PROVIDER)
def test_an_able_server_is_proved_able(provider: str, transport: str, tmp_path: Path) -> None:
    def strict(_number: int, body: Body) -> Act | None:
        needs_limit = provider == "anthropic" and "max_tokens" not in body
        return refuse(400, {"error": {"message": "max_tokens: Field required"}}) if needs_limit else None

    pages = ANTHROPIC_PAGES if provider == "anthropic" else VLLM_PAGES
    with Doctored(script=strict).server(pages) as server:
        result = examine(server, tmp_path, provider=provider, transport=transport)

    assert result.code == 0, result.err
    assert verdicts(result) == OF_PROVIDER[provider]


def test_what_was_found_comes_with_its_measure(tmp_path: Path) -> None:
    with Doctored().server() as server:
        found = findings(examine(server, tmp_path))

    assert found["logprobs"]["value"] == {"k_max": 20, "k_refused": 21, "token_ids": True}
    assert found["seed"]["value"] == "honoured"
    assert found["n"]["value"] == 2
    assert found["tools"]["value"] == {"auto": "yes"}
    assert found["limits"]["evidence"] == "500 requests in 60 s"
    assert found["version"]["value"] == "0.12.1"


def test_the_table_shows_every_probe_with_its_evidence(tmp_path: Path) -> None:
    with Doctored().server() as server:
        path = save(tmp_path / "r.yaml", recipe(server))
        result = cli("doctor", path, "-o", tmp_path / "run")

    assert result.code == 0
    assert f"qwen: qwen3 at 127.0.0.1:{server.port} (vllm, self-hosted)" in result.out
    assert "structured_outputs" in result.out
    assert "obeyed: 'okapi'" in result.out


# ---- servers that lie, each about one thing

LIES: dict[str, tuple[Doctored, str, str]] = {
    "schema ignored": (Doctored("structured"), "structured", "no"),
    "schema refused": (Doctored(refuses=("structured",)), "structured", "no"),
    "tools ignored": (Doctored("tools"), "tools", "no"),
    "tools refused": (Doctored(refuses=("tools",)), "tools", "no"),
    "tools called wrongly": (Doctored("arguments"), "tools", "unknown"),
    "one choice of two": (Doctored("n"), "n", "no"),
    "logprobs ignored": (Doctored("logprobs"), "logprobs", "no"),
    "no usage": (Doctored(usage=False), "usage", "no"),
    "stop ignored": (Doctored("stop"), "stop", "no"),
    "seed ignored": (Doctored("seed"), "seed", "no"),
    "limit ignored": (Doctored("max_tokens"), "max_tokens", "no"),
    "new limit ignored": (Doctored("max_completion_tokens"), "max_completion_tokens", "no"),
    "unknown field ignored": (Doctored("structured_outputs"), "structured_outputs", "no"),
    "system not followed": (Doctored("system"), "system", "unknown"),
    "system refused": (Doctored(refuses=("system",)), "system", "no"),
}


# One of two limits can only be told by counting, and not where no limit counts.
DOUBTED = {"no usage": "unknown", "limit ignored": "no"}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_out_and_nothing_else_is_doubted(lie: str, tmp_path: Path) -> None:
    server, probe, verdict = LIES[lie]

    with server.server() as running:
        result = examine(running, tmp_path)

    found = verdicts(result)
    assert found.pop(probe) == verdict
    honest = {name: said for name, said in OF_PROVIDER["vllm"].items() if name != probe}
    if lie in DOUBTED:
        honest["max_completion_tokens"] = DOUBTED[lie]
    assert found == honest


def test_a_tool_that_is_only_called_by_force_is_reported_so(tmp_path: Path) -> None:
    with Doctored(refuses=("auto",)).server() as server:
        found = findings(examine(server, tmp_path))["tools"]

    assert (found["verdict"], found["value"]) == ("yes", {"auto": "no"})
    assert "auto is not supported here" in found["evidence"]


@pytest.mark.parametrize(
    ("k_max", "k_over"), [(5, "refuse"), (5, "cap"), (5, "sentinels"), (20, "cap"), (8, "refuse")]
)
def test_the_largest_k_is_found_whatever_happens_beyond(k_max: int, k_over: str, tmp_path: Path) -> None:
    with Doctored(k_max=k_max, k_over=k_over).server() as server:
        found = findings(examine(server, tmp_path))["logprobs"]

    assert found["value"] == {"k_max": k_max, "k_refused": k_max + 1, "token_ids": True}


def test_a_tokens_own_logprob_alone_is_an_ability_too(tmp_path: Path) -> None:
    with Doctored("alternatives").server() as server:
        found = findings(examine(server, tmp_path))["logprobs"]

    assert (found["verdict"], found["value"]["k_max"], found["value"]["k_refused"]) == ("yes", 0, 1)


@given(st.integers(-1, K_LIMIT))
def test_bisection_finds_every_limit_within_its_sends(limit: int) -> None:
    works, refused, sends = -1, None, 0

    while (k := next_k(works, refused)) is not None:
        sends += 1
        works, refused = (k, refused) if k <= limit else (works, k)

    assert works == limit
    assert refused == (None if limit == K_LIMIT else limit + 1)
    assert sends <= LOGPROBS.sends


def edited(change: Callable[[Any], object]) -> Loopback:
    """An able server whose answers are changed once more."""
    able = Doctored()

    def edit(body: Body, answer: Body) -> Body:
        done = able.edit(body, answer)
        change(done)
        return done

    return able.server(edit=edit)


def think(answer: Any) -> None:
    answer["choices"][0]["message"]["reasoning_content"] = "Let me count."


def think_in_the_text(answer: Any) -> None:
    message = answer["choices"][0]["message"]
    message["content"] = f"<think>Let me count.</think>{message['content'] or ''}"


def think_behind_closed_doors(answer: Any) -> None:
    answer["usage"]["completion_tokens"] += 64
    answer["usage"]["completion_tokens_details"] = {"reasoning_tokens": 64}


def swap_text_and_reasoning(answer: Any) -> None:
    message = answer["choices"][0]["message"]
    message["reasoning_content"], message["content"] = message["content"], "Here it is."


@pytest.mark.parametrize(
    ("change", "verdict", "value"),
    [
        (think, "yes", "reasoning_content"),
        (think_in_the_text, "yes", "<think> in the text"),
        (think_behind_closed_doors, "no", None),
    ],
)
def test_reasoning_is_reported_in_the_form_it_came(
    change: Callable[[Any], object], verdict: str, value: str | None, tmp_path: Path
) -> None:
    with edited(change) as server:
        found = findings(examine(server, tmp_path))["reasoning"]

    assert (found["verdict"], found["value"]) == (verdict, value)


def test_structure_that_stands_in_the_reasoning_is_none(tmp_path: Path) -> None:
    with edited(swap_text_and_reasoning) as server:
        found = findings(examine(server, tmp_path))["structured"]

    assert (found["verdict"], found["evidence"]) == (
        "no",
        "what the schema asks for stands in the reasoning, not in the answer",
    )


def test_a_model_that_answers_under_another_name_is_unusable(tmp_path: Path) -> None:
    with Doctored().server(served_model="llama-3") as server:
        result = examine(server, tmp_path)

    assert result.code == 3
    assert findings(result)["model"]["evidence"].endswith("if that is right, add served_as: [llama-3]")
    assert verdicts(result)["model"] == "no"


# ---- what keeps an endpoint from being asked at all


def unusable(result: Result, probe: str) -> str:
    """The evidence of the probe that failed; the endpoint is unusable and the command says so."""
    assert result.code == 3
    assert "an endpoint is unusable" in result.err
    found = findings(result)[probe]
    assert found["verdict"] == "no"
    return str(found["evidence"])


def test_a_host_without_address_fails_at_dns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_host: object, **_kind: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", unknown)
    monkeypatch.setattr("synthgen.api._loop_factory", lambda: asyncio.new_event_loop)
    with Loopback() as server:
        result = examine(server, tmp_path, base_url="http://nowhere.invalid/v1")

    assert unusable(result, "reachable") == "DNS: nowhere.invalid: Name or service not known"


def test_a_closed_port_fails_at_tcp(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with Loopback() as server:
            result = examine(server, tmp_path, base_url=url)

    assert unusable(result, "reachable").startswith("TCP: 127.0.0.1:")


def test_a_plain_server_fails_at_tls(tmp_path: Path) -> None:
    with Loopback() as server:
        result = examine(server, tmp_path, base_url=server.url.replace("http", "https"))

    assert unusable(result, "reachable").startswith("TLS: 127.0.0.1:")


@pytest.mark.parametrize(
    ("status", "said"), [(401, "is not accepted"), (403, "is known, but may not ask this")]
)
def test_a_refused_key_and_a_key_without_rights_are_told_apart(
    status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)

    with Loopback(script=lambda _number, _body: refuse(status)) as server:
        result = examine(server, tmp_path, api_key_env="LAB_KEY")

    assert said in unusable(result, "key")
    assert len(server.requests) == 1


def test_a_server_that_wants_a_key_where_none_is_named_is_told_so(tmp_path: Path) -> None:
    with Loopback(script=lambda _number, _body: refuse(401)) as server:
        result = examine(server, tmp_path)

    assert unusable(result, "key").startswith("none is sent, but one is wanted: HTTP 401")


def test_an_unknown_model_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    error = {"error": {"message": "The model `qwen3` does not exist.", "code": "model_not_found"}}

    with Loopback(script=lambda _number, _body: refuse(404, error), pages=models("other-model")) as server:
        result = examine(server, tmp_path)

    assert "listed are other-model" in unusable(result, "model")


def test_a_busy_server_is_waited_for_as_long_as_it_asks(tmp_path: Path) -> None:
    busy = refuse(429, {"error": {"message": "slow down"}}, retry_after="0.01")

    with Doctored(script=lambda number, _body: busy if number in (1, 4) else None).server() as server:
        result = examine(server, tmp_path)

    assert verdicts(result) == OF_PROVIDER["vllm"]


def test_a_server_that_asks_for_an_hour_is_not_waited_for(tmp_path: Path) -> None:
    busy = refuse(429, {"error": {"message": "slow down"}}, retry_after="3600")

    with Loopback(script=lambda _number, _body: busy) as server:
        result = examine(server, tmp_path)

    assert result.code == 3
    assert findings(result)["chat"]["evidence"] == "the server is busy (rate_limit); it asks to wait 3600 s"
    assert len(server.requests) == 1


async def test_without_a_time_named_waits_grow_until_patience_ends() -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    async with Loopback(script=lambda _number, _body: refuse(429)) as server:
        resolved = resolve(api.load_recipe(recipe(server)))
        spec = resolved.specs["qwen"]
        line = cast(RemoteTeacher, connect(spec))
        heard = await Caller(spec, line, Budget(None, 0.0), dialect="openai", sleep=wait).ask(CHAT)
        await line.close()

    assert waited == [1, 2, 4, 8, 16]
    assert heard.refusal("chat").verdict == "error"


async def test_an_interrupted_examination_keeps_what_it_proved_and_paid(tmp_path: Path) -> None:
    asked_twice = asyncio.Event()

    def hang(number: int, _body: Body) -> Act | None:
        if number == 2:
            asked_twice.set()
            return HANG
        return None

    async with Doctored(script=hang).server() as server:
        priced = recipe(server, teachers={"qwen": teacher(server, price=PRICE)})
        work = asyncio.ensure_future(diagnose(api.load_recipe(priced), tmp_path / "run", DoctorOptions()))
        await asked_twice.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    stored = json.loads((tmp_path / "run" / "doctor.json").read_text())
    assert [item["probe"] for item in stored["diagnoses"][0]["findings"]][-1] == "reasoning"
    assert stored["spent_usd"] > 512 * 15 / 1e6  # the question under way counts in full


def test_a_thinking_budget_is_left_room_and_paid_for(tmp_path: Path) -> None:
    thinking = {"extra": {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "max_tokens": 4000}

    with Doctored().server() as server:
        plain = examine(server, tmp_path, provider="anthropic").json["bound"]
        asked = len(server.requests)
        bound = examine(server, tmp_path, provider="anthropic", sampling=thinking).json["bound"]

    limits = [seen.body["max_tokens"] for seen in server.requests[asked:] if "max_tokens" in seen.body]
    assert min(limits) > 2000  # type: ignore[type-var]  # numbers
    assert bound["output_tokens"] == plain["output_tokens"] + 2000 * bound["requests"]


async def test_a_server_that_has_gone_is_not_knocked_at_for_each_question() -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    async with Loopback() as server:
        spec = resolve(api.load_recipe(recipe(server))).specs["qwen"]
    line = cast(RemoteTeacher, connect(spec))
    caller = Caller(spec, line, Budget(None, 0.0), dialect="openai", sleep=wait)
    for _ in range(2):
        await caller.ask(CHAT)
    await line.close()

    assert caller.stopped is not None
    assert caller.stopped.reason == "gone"
    assert waited == [1, 2, 4, 8, 16]


async def test_a_server_that_hangs_is_asked_no_third_time() -> None:
    async with Loopback(script=lambda _number, _body: HANG) as server:
        spec = resolve(api.load_recipe(recipe(server))).specs["qwen"]
        line = cast(RemoteTeacher, connect(spec))
        caller = Caller(spec, line, Budget(None, 0.0), dialect="openai", timeout_s=0.02)
        heard = [await caller.ask(CHAT) for _ in range(3)]
        await line.close()

    assert len(server.requests) == 2
    assert "2 questions had no answer in time" in heard[-1].refusal("chat").evidence


def test_an_exhausted_quota_stops_the_questions(tmp_path: Path) -> None:
    spent = refuse(429, {"error": {"message": "no credit", "code": "insufficient_quota"}})

    with Doctored(script=lambda number, _body: spent if number > 3 else None).server() as server:
        result = examine(server, tmp_path)

    assert len(server.requests) == 4
    assert verdicts(result)["structured"] == "error"
    assert findings(result)["steady"]["evidence"].startswith("stopped answering; quota: HTTP 429: no credit")
    assert "): steady: stopped answering; quota" in result.err
    assert result.code == 3


def test_an_answer_that_may_have_been_paid_is_not_bought_again(tmp_path: Path) -> None:
    lost = Act("drop_after")

    with Doctored(script=lambda number, _body: lost if number == 2 else None).server() as server:
        result = examine(server, tmp_path, price=PRICE)

    assert verdicts(result)["system"] == "error"
    assert server.paid_twice == 1  # the story, twice with one seed, on purpose
    assert result.json["diagnoses"][0]["cost_usd"] > 512 * 15 / 1e6


# ---- policy, money, consent


def test_policy_stops_the_doctor_before_a_socket_is_opened(tmp_path: Path) -> None:
    with Loopback() as server:
        result = examine(server, tmp_path, hf=None, model="nobody-knows-it")

    assert result.code == 4
    assert server.requests == server.pages_read == []


def test_the_price_comes_first_and_is_never_passed(tmp_path: Path) -> None:
    with Doctored().server() as server:
        result = examine(server, tmp_path, price=PRICE)

    promised, (diagnosis,) = result.json["bound"], result.json["diagnoses"]
    assert f"for at most {promised['usd']:.6f} USD" in result.err
    assert 0 < diagnosis["cost_usd"] == result.json["spent_usd"] < promised["usd"]
    assert diagnosis["sent"] == len(server.requests) <= promised["requests"]
    billed = sum(paid.input_tokens * 3 + paid.output_tokens * 15 for paid in server.payments) / 1e6
    assert diagnosis["cost_usd"] == pytest.approx(billed)


@pytest.mark.parametrize("transport", ["aiohttp", "sdk"])
def test_a_bound_beyond_the_budget_sends_nothing(transport: str, tmp_path: Path) -> None:
    with Doctored().server() as server:
        result = examine(server, tmp_path, "--max-cost-usd", "0.001", price=PRICE, transport=transport)

    assert result.code == BudgetReached.exit_code
    assert "nothing was sent" in result.err
    assert server.requests == server.pages_read == []


def test_what_the_doctor_spent_counts_against_the_cap_of_the_run(tmp_path: Path) -> None:
    with Doctored().server() as server:
        examined = examine(server, tmp_path, price=PRICE)
        spent = examined.json["spent_usd"]
        asked = len(server.requests)

        result = cli("generate", tmp_path / "r.yaml", "-o", tmp_path / "run", "--max-cost", spent + 1e-6)

        assert result.code == 5
        assert len(server.requests) == asked


def test_what_a_killed_run_spent_is_no_longer_the_doctors_to_spend(tmp_path: Path) -> None:
    with Doctored().server() as server:
        path = save(tmp_path / "r.yaml", recipe(server, teachers={"qwen": teacher(server, price=PRICE)}))
        spent = cli("generate", path, "-o", tmp_path / "run", "--json").json["usage"]["spent_usd"]
        (tmp_path / "run" / "usage.json").unlink()  # it is written at the end of a session
        asked = len(server.requests)
        bound = examine(server, tmp_path / "other", price=PRICE).json["bound"]["usd"]
        sent = len(server.requests) - asked

        result = cli("doctor", path, "-o", tmp_path / "run", "--max-cost", bound + spent / 2)

    assert (result.code, len(server.requests) - asked - sent) == (BudgetReached.exit_code, 0)


def test_the_doctor_stays_out_of_a_run_that_is_going_on(tmp_path: Path) -> None:
    with Doctored().server() as server:
        release = lock_run(tmp_path / "run" / "journal")
        result = examine(server, tmp_path)
        release()

    assert (result.code, server.requests) == (RunLocked.exit_code, [])


def test_of_a_doctor_that_is_killed_the_bound_counts_as_spent(tmp_path: Path) -> None:
    while_asking = []

    def tell(_alias: str, _finding: Finding) -> None:
        while_asking.append(read_record(RunFolder(tmp_path / "run")).spent_usd)

    with Doctored().server() as server:
        path = save(tmp_path / "r.yaml", recipe(server, teachers={"qwen": teacher(server, price=PRICE)}))
        found = api.doctor(path, tmp_path / "run", options=DoctorOptions(tell=tell))

    assert set(while_asking) == {found.bound.usd}
    assert read_record(RunFolder(tmp_path / "run")).spent_usd == found.spent_usd


def test_a_missing_key_is_found_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAB_KEY", raising=False)

    with Loopback() as server:
        result = examine(server, tmp_path, api_key_env="LAB_KEY")

    assert result.code == 2
    assert "LAB_KEY is not set" in result.err
    assert server.requests == server.pages_read == []


@pytest.mark.parametrize("provider", ["vllm", "openai", "anthropic"])
def test_a_key_that_everything_repeats_is_found_nowhere(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)
    telling = {**VLLM_PAGES, "/v1/models": page({"data": [], "you": KEY}), "/version": page({"version": KEY})}

    def leak(number: int, _body: Body) -> Act | None:
        return ECHO_KEY if number > 3 else None

    with Doctored(script=leak).server(telling) as server:
        result = examine(server, tmp_path, provider=provider, api_key_env="LAB_KEY")
        table = cli("doctor", tmp_path / "r.yaml", "-o", tmp_path / "run")

    assert KEY in str([seen.headers for seen in server.pages_read])
    texts = [result.out, result.err, table.out, *(p.read_text() for p in tmp_path.rglob("*") if p.is_file())]
    assert all(KEY not in text for text in texts)


# ---- a bare URL


def test_a_bare_url_needs_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())

    with Doctored().server() as server:
        result = cli(
            "doctor", server.url, "--model", "qwen3", "--route", "self-hosted", "--hf", "Qwen/Qwen3-8B"
        )

    assert result.code == 2
    assert "say --yes" in result.err
    assert "at most" in result.err
    assert server.requests == server.pages_read == []


def test_a_bare_url_is_examined_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with Doctored().server() as server:
        words = ("--model", "qwen3", "--provider", "vllm", "--route", "self-hosted", "--hf", "Qwen/Qwen3-8B")
        result = cli("doctor", server.url, *words, "--yes", "--json")

    assert verdicts(result) == OF_PROVIDER["vllm"]
    assert list(tmp_path.iterdir()) == []


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 2)])
def test_on_a_terminal_consent_is_asked_for(typed: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))

    with Doctored().server() as server:
        words = ("--model", "qwen3", "--route", "self-hosted", "--hf", "Qwen/Qwen3-8B")
        result = cli("doctor", server.url, *words, "--set", "teachers.endpoint.price={input: 3, output: 15}")

    assert result.code == code
    assert "USD" in result.err.splitlines()[0]
    assert bool(server.requests) is (code == 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--model"),
        (("--model", "qwen3"), "--route"),
        (("--model", "qwen3", "--route", "self-hosted", "--provider", "vlm"), "did you mean 'vllm'"),
    ],
)
def test_a_bare_url_says_what_else_it_needs(words: tuple[str, ...], said: str) -> None:
    with Loopback() as server:
        result = cli("doctor", server.url, "--yes", *words)

    assert result.code == 2
    assert said in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("--model", "other"),
        ("--provider", "openai"),
        ("--route", "groq"),
        ("--hf", "a/b"),
        ("--use", "commercial"),
    ],
)
def test_a_recipe_is_not_examined_with_words_that_only_a_url_takes(
    tmp_path: Path, words: tuple[str, str]
) -> None:
    with Loopback() as server:
        result = cli("doctor", save(tmp_path / "recipe.yaml", recipe(server)), *words)

    assert result.code == 2
    assert words[0] in result.err
    assert "--set" in result.err
    assert server.requests == server.pages_read == []


def test_the_folder_for_a_url_is_refused_as_nothing_is_kept_of_it(tmp_path: Path) -> None:
    result = cli("doctor", "http://127.0.0.1:1/v1", "--model", "qwen3", "--yes", "-o", tmp_path / "run")

    assert result.code == 2
    assert "--out" in result.err


def test_a_url_that_is_not_http_is_not_taken_for_a_file() -> None:
    result = cli("doctor", "ftp://127.0.0.1/v1", "--model", "qwen3", "--yes")

    assert result.code == 2
    assert "ftp://127.0.0.1/v1" in result.err
    assert "http://" in result.err


def test_a_credential_in_a_url_is_refused_and_not_repeated() -> None:
    result = cli("doctor", f"http://me:{KEY}@127.0.0.1:1/v1", "--model", "qwen3", "--yes")

    assert result.code == 2
    assert KEY not in result.out + result.err


# ---- more than one endpoint


def test_endpoints_are_examined_side_by_side_and_each_in_order(tmp_path: Path) -> None:
    both_asked = threading.Barrier(2)

    def wait_for_the_other(number: int, _body: Body) -> None:
        if number == 1:
            both_asked.wait(10)

    able, other = Doctored(script=wait_for_the_other), Doctored("structured", script=wait_for_the_other)
    with able.server() as one, other.server() as two:
        teachers = {
            "one": teacher(one),
            "two": teacher(two),
            "unused": teacher(one, base_url="http://127.0.0.1:1"),
        }
        steps = [{"name": "answer", "prompt": "answer", "teacher": {"one": 1, "two": 1}}]
        path = save(tmp_path / "r.yaml", recipe(one, teachers=teachers, steps=steps))
        result = cli("doctor", path, "-o", tmp_path / "run", "--json")

    assert [item["alias"] for item in result.json["diagnoses"]] == ["one", "two"]
    assert result.code == 0
    assert one.max_in_flight == two.max_in_flight == 1


def test_every_server_of_a_pool_is_examined(tmp_path: Path) -> None:
    with Doctored().server() as one, Doctored("structured").server() as two:
        pool = teacher(one, base_urls=[one.url, two.url])
        del pool["base_url"]
        path = save(tmp_path / "r.yaml", recipe(one, teachers={"qwen": pool}))
        result = cli("doctor", path, "-o", tmp_path / "run", "--json")

    found = {item["endpoint"]: item for item in result.json["diagnoses"]}
    assert {item["alias"] for item in found.values()} == {"qwen"}
    assert list(found) == [f"127.0.0.1:{server.port}" for server in (one, two)]
    verdict_of = [
        next(f["verdict"] for f in item["findings"] if f["probe"] == "structured") for item in found.values()
    ]
    assert verdict_of == ["yes", "no"]


def test_a_teacher_in_this_process_has_nothing_to_examine(tmp_path: Path) -> None:
    local = {"provider": "local", "model": "HuggingFaceTB/SmolLM2-135M-Instruct"}
    content = recipe_without_server(local)

    result = cli("doctor", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")

    assert result.code == 0, result.err
    assert result.json["skipped"] == ["qwen"]
    assert result.json["bound"]["requests"] == 0


def recipe_without_server(config: dict[str, object]) -> dict[str, Any]:
    class Nowhere:
        url = "http://127.0.0.1:1/v1"

    return recipe(Nowhere(), teachers={"qwen": config})


# ---- as values


@given(
    st.lists(
        st.builds(
            Finding,
            st.text(),
            st.sampled_from(["yes", "no", "unknown", "error"]),
            st.text(),
            st.none() | st.integers(0, 9) | st.dictionaries(st.text(), st.booleans()),
        )
    )
)
def test_a_diagnosis_reads_back_as_it_was_written(found: list[Finding]) -> None:
    diagnosis = Diagnosis("a", "vllm", "m", "r", "h:1", "d", "2026-11-22", tuple(found), 3, 0.5)

    assert Diagnosis.from_json(json.loads(json.dumps(diagnosis.as_json()))) == diagnosis


def test_the_function_gives_what_the_command_prints(tmp_path: Path) -> None:
    with Doctored().server() as server:
        found = api.doctor(recipe(server), tmp_path / "run")

    assert found.problem is None
    assert [item.usable for item in found.diagnoses] == [True]


def test_limits_of_an_unknown_window_are_said_to_be_seen() -> None:
    headers = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "8.64s",
    }

    found, none = find_limits((), headers), find_limits((), {"content-type": "application/json"})

    assert (found.verdict, none.verdict) == ("unknown", "no")
    assert found.evidence.startswith("x-ratelimit-limit-requests: 10000, remaining 9999, reset 8.64s (")


def test_a_url_without_its_scheme_is_told_so() -> None:
    result = cli("doctor", "127.0.0.1:8000", "--model", "m", "--yes")

    assert result.code == 2
    assert "127.0.0.1:8000: no such recipe; a URL begins with http:// or https://" in result.err
