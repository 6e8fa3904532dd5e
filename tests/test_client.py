"""Remote teachers against a loopback server: every test runs over all transports and all three providers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from synthgen.asking.outcome import Answer, Gate, LaneStop, Retry
from synthgen.asking.providers import RemoteTeacher, RemoteTeacherConfig
from synthgen.plugins import load_plugin
from synthgen.types import Message, Request, Sampling, TeacherIdentity
from tests.loopback import (
    DROP_AFTER,
    DROP_BEFORE,
    ECHO_KEY,
    HANG,
    HTML,
    MALFORMED,
    TRUNCATE,
    Act,
    Loopback,
    refuse,
)

KEY = "sk-loopback-0123456789/+="
KEY_HEADERS = {
    "openai": ("authorization", f"Bearer {KEY}"),
    "vllm": ("authorization", f"Bearer {KEY}"),
    "anthropic": ("x-api-key", KEY),
}


@dataclass(frozen=True)
class Client:
    """One of the nine combinations."""

    provider: str
    transport: str

    @asynccontextmanager
    async def teacher(self, url: str, **fields: object) -> AsyncIterator[RemoteTeacher]:
        """A connected teacher, closed afterwards; `fields` go into its config."""
        plugin = load_plugin("provider", self.provider)
        values = {"api_key_env": "LOOPBACK_KEY", "transport": self.transport, **fields}
        config = plugin.params.model_validate(
            {"provider": self.provider, "model": "teacher-1", "base_url": url, **values}
        )
        assert isinstance(config, RemoteTeacherConfig)
        teacher = plugin.run(config)
        assert isinstance(teacher, RemoteTeacher)
        try:
            yield teacher
        finally:
            await teacher.close()


@pytest.fixture(params=["openai", "vllm", "anthropic"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["auto", "aiohttp", "sdk"])
def client(request: pytest.FixtureRequest, provider: str, monkeypatch: pytest.MonkeyPatch) -> Client:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    return Client(provider, str(request.param))


def ask(text: str = "Name a colour.") -> Request:
    return Request(
        messages=(Message("system", "Be brief."), Message("user", text)),
        teacher=TeacherIdentity("any", "self-hosted", "loopback", "teacher-1"),
        sampling=Sampling(temperature=0.5, top_p=0.9, max_tokens=64, stop=("END",)),
    )


async def test_an_answer_carries_text_usage_model_and_id(client: Client) -> None:
    async with (
        Loopback(reply=lambda _body: "Blue, of course.") as server,
        client.teacher(server.url) as teacher,
    ):
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Answer)
    completion = outcome.completion
    assert (completion.text, completion.finish_reason) == ("Blue, of course.", "stop")
    assert (completion.served_model, completion.reply_id) == ("teacher-1", server.payments[0].id)
    assert completion.usage is not None
    assert completion.usage.output_tokens == 3


async def test_the_body_that_arrives_is_the_wire_body(client: Client) -> None:
    async with Loopback() as server, client.teacher(server.url) as teacher:
        await teacher.answer(ask())

    expected = {"model": "teacher-1", "temperature": 0.5, "top_p": 0.9, "max_tokens": 64}
    user = {"role": "user", "content": "Name a colour."}
    if client.provider == "anthropic":
        expected |= {"stop_sequences": ["END"], "system": "Be brief.", "messages": [user]}
    else:
        expected |= {"stop": ["END"], "messages": [{"role": "system", "content": "Be brief."}, user]}
    assert server.requests[0].body == expected


async def test_the_path_follows_the_dialect(client: Client) -> None:
    async with Loopback() as server, client.teacher(server.url) as teacher:
        await teacher.answer(ask())

    assert server.requests[0].path == (
        "/v1/messages" if client.provider == "anthropic" else "/v1/chat/completions"
    )


async def test_the_key_travels_in_the_header_of_the_dialect_and_in_no_other(client: Client) -> None:
    async with Loopback() as server, client.teacher(server.url) as teacher:
        await teacher.answer(ask())

    sent = {name: value for name, value in server.requests[0].headers.items() if KEY in value}
    assert sent == dict([KEY_HEADERS[client.provider]])


async def test_no_credential_is_sent_where_none_is_named(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNRELATED_KEY", "secret-unrelated")
    for name in ("OPENAI_ADMIN_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "secret-unrelated")
    for name in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "X-Unrelated: secret-unrelated")

    async with Loopback() as server, client.teacher(server.url, api_key_env=None) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Answer)
    headers = server.requests[0].headers
    assert not {"authorization", "x-api-key"} & headers.keys()
    assert "secret-unrelated" not in headers.values()


async def test_the_anthropic_version_is_pinned_for_both_transports(client: Client) -> None:
    async with Loopback() as server, client.teacher(server.url) as teacher:
        await teacher.answer(ask())

    version = server.requests[0].headers.get("anthropic-version")
    assert version == ("2023-06-01" if client.provider == "anthropic" else None)


async def test_a_401_that_echoes_the_key_is_scrubbed_and_stops_the_lane(client: Client) -> None:
    async with Loopback(script=[ECHO_KEY]) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, LaneStop)
    assert outcome.reason == "auth"
    assert "[credential]" in outcome.message
    assert KEY not in repr(outcome)


async def test_an_answer_that_repeats_the_key_is_scrubbed(client: Client) -> None:
    async with Loopback(reply=lambda _body: f"it is {KEY}!") as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Answer)
    assert outcome.completion.text == "it is [credential]!"


async def test_a_broken_paid_body_is_kept_without_the_key(client: Client) -> None:
    server = Loopback(reply=lambda _body: KEY, script=[MALFORMED])

    async with server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid, len(server.payments)) == ("bad_body", True, 1)
    assert outcome.body is not None
    assert b"[credential]" in outcome.body
    assert KEY.encode() not in outcome.body


async def test_a_short_key_is_no_secret_and_answers_stay_whole(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPBACK_KEY", "EMPTY")

    async with Loopback(reply=lambda _body: "EMPTY set") as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Answer)
    assert outcome.completion.text == "EMPTY set"


async def test_a_429_is_a_gate_with_the_servers_time(client: Client) -> None:
    async with (
        Loopback(script=[refuse(429, retry_after="7")]) as server,
        client.teacher(server.url) as teacher,
    ):
        outcome = await teacher.answer(ask())

    assert outcome == Gate("rate_limit", 7.0)


async def test_no_compression_is_asked_for_so_that_the_cap_counts_what_is_read(client: Client) -> None:
    async with Loopback() as server, client.teacher(server.url) as teacher:
        await teacher.answer(ask())

    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_nothing_is_retried_by_the_transport(client: Client) -> None:
    async with (
        Loopback(script=lambda _n, _body: refuse(500)) as server,
        client.teacher(server.url) as teacher,
    ):
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Retry)
    assert len(server.requests) == 1


async def test_a_refused_connection_cannot_have_been_paid(client: Client) -> None:
    async with Loopback() as server:
        pass

    async with client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("connect", False)


@pytest.mark.parametrize(("act", "payments"), [(DROP_BEFORE, 0), (DROP_AFTER, 1)], ids=["unpaid", "paid"])
async def test_a_dropped_connection_counts_as_perhaps_paid(client: Client, act: Act, payments: int) -> None:
    async with Loopback(script=[act]) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("reset", True)
    assert len(server.payments) == payments


async def test_a_truncated_body_counts_as_perhaps_paid(client: Client) -> None:
    async with Loopback(script=[TRUNCATE]) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("body", True)


async def test_what_came_of_a_truncated_body_is_kept(client: Client) -> None:
    if client.transport == "sdk":
        pytest.skip("the SDKs keep it to themselves")
    async with Loopback(script=[TRUNCATE]) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Retry)
    assert outcome.body is not None
    assert outcome.body.startswith(b"{")
    assert server.payments[0].id.encode() in outcome.body


async def test_a_proxys_html_page_is_retried_and_named(client: Client) -> None:
    async with Loopback(script=[HTML]) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert outcome == Retry("server_error", "HTTP 502: HTML page '502 Bad Gateway'")


async def test_a_server_that_never_answers_times_out_as_perhaps_paid(client: Client) -> None:
    async with Loopback(script=[HANG]) as server, client.teacher(server.url, timeout_s=0.2) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("timeout", True)


async def test_a_redirect_is_not_followed_and_carries_no_key_away(client: Client) -> None:
    async with Loopback() as elsewhere:
        act = Act("redirect", headers={"location": f"{elsewhere.url}/messages"})
        async with Loopback(script=[act]) as server, client.teacher(server.url) as teacher:
            outcome = await teacher.answer(ask())

    assert isinstance(outcome, LaneStop)
    assert elsewhere.url in outcome.message
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("https://other.example/v1{path}", "write `base_url: https://other.example/v1`"),
        ("/api/v1{path}", "write `base_url: {host}/api/v1`"),
        ("//other.example/v1{path}?a=b", "write `base_url: http://other.example/v1`"),
        ("/v1{path}/", "wants a slash behind {host}/v1{path}, which no base_url can give it"),
        ("/login", "redirects to {host}/login,"),
        ("elsewhere/", "redirects to elsewhere/,"),
        ("http://[half", "redirects to nowhere,"),
    ],
    ids=["other host", "other path", "other host, same scheme", "slash", "page", "relative", "no URL"],
)
@pytest.mark.parametrize("status", [301, 307, 308])
async def test_a_redirect_says_which_base_url_to_write(
    client: Client, status: int, location: str, said: str
) -> None:
    path = "/messages" if client.provider == "anthropic" else "/chat/completions"
    act = refuse(status, location=location.format(path=path))
    async with Loopback(script=[act]) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, LaneStop)
    assert said.format(path=path, host=server.url.removesuffix("/v1")) in outcome.message
    assert outcome.message.startswith(f"HTTP {status}: ")


async def test_a_redirects_secrets_are_not_told(client: Client) -> None:
    location = f"https://user:pass-word@login.example/sso?token=tok-123&key={KEY}#fragment-1"
    act = refuse(307, location=location)
    async with Loopback(script=[act]) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, LaneStop)
    assert "https://login.example/sso," in outcome.message
    assert not [part for part in ("user", "pass-word", "tok-123", KEY, "fragment") if part in outcome.message]


async def test_the_transport_has_no_queue_of_its_own(client: Client) -> None:
    async with Loopback(hold=48) as server, client.teacher(server.url) as teacher:
        outcomes = await asyncio.gather(*(teacher.answer(ask(str(n))) for n in range(48)))

    assert all(isinstance(outcome, Answer) for outcome in outcomes)
    assert server.max_in_flight == 48


async def test_a_reply_above_the_cap_is_given_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("direct", "aiohttp_transport", "sdk"):
        monkeypatch.setattr(f"synthgen.asking.transport.{module}.BODY_CAP_BYTES", 1000)

    async with Loopback(words=2000) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(Request(ask().messages, ask().teacher, Sampling()))

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("body", True)


async def test_cancelling_a_request_ends_it_and_leaves_the_teacher_usable(client: Client) -> None:
    async with Loopback(script=[HANG]) as server, client.teacher(server.url) as teacher:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await teacher.answer(ask())
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Answer)


async def test_the_served_model_is_the_name_in_the_reply(client: Client) -> None:
    async with Loopback(served_model="teacher-1-turbo") as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Answer)
    assert outcome.completion.served_model == "teacher-1-turbo"


async def test_a_token_limit_is_flagged_as_length(client: Client) -> None:
    async with Loopback(words=200) as server, client.teacher(server.url) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Answer)
    assert outcome.completion.finish_reason == "length"


@pytest.mark.parametrize("shape", [lambda u: u.removesuffix("/v1"), lambda u: u + "/"], ids=["bare", "slash"])
async def test_the_base_url_may_come_with_or_without_version_and_slash(
    client: Client, shape: Callable[[str], str]
) -> None:
    async with Loopback() as server, client.teacher(shape(server.url)) as teacher:
        outcome = await teacher.answer(ask())

    assert isinstance(outcome, Answer)


async def test_the_environments_proxy_carries_requests_to_other_hosts(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Loopback() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        async with client.teacher("http://teacher.invalid/v1") as teacher:
            outcome = await teacher.answer(ask())

    assert isinstance(outcome, Answer)
    assert proxy.requests[0].headers["host"] == "teacher.invalid"
