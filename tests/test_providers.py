"""What a recipe may say of a remote teacher: URLs, credentials, routes, and what that means on the wire."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from synthgen.asking.providers import (
    AnthropicConfig,
    OpenAIConfig,
    RemoteTeacherConfig,
    VllmConfig,
    check_key,
    connect,
    credentials,
)
from synthgen.errors import MissingKeyError
from synthgen.plugins import load_plugin
from synthgen.recipe.model import TeacherConfig
from synthgen.types import Message, Request, Sampling, TeacherIdentity
from tests.loopback import Body, Loopback

CONFIGS: dict[str, type[RemoteTeacherConfig]] = {
    "openai": OpenAIConfig,
    "vllm": VllmConfig,
    "anthropic": AnthropicConfig,
}


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def config(provider: str = "openai", /, **fields: object) -> RemoteTeacherConfig:
    return CONFIGS[provider].model_validate({"provider": provider, "model": "m", **fields})


@pytest.mark.parametrize("provider", CONFIGS)
def test_the_plugin_brings_its_own_parameter_model(provider: str) -> None:
    assert load_plugin("provider", provider).params is CONFIGS[provider]


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("HTTPS://API.OpenAI.com/v1", "https://api.openai.com/v1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("https://host/vllm", "https://host/vllm/v1"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", None),
        ("https://api.deepseek.com/anthropic", "https://api.deepseek.com/anthropic/v1"),
        ("http://host/v1/chat/completions", "http://host/v1"),
        ("http://host/v1/messages", "http://host/v1"),
    ],
)
def test_base_urls_are_normalised(url: str, normal: str | None) -> None:
    assert config(base_url=url).base_url == (normal or url)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "https://",
        "https://user:pass@host/v1",
        "http://host?key=1",
        "http://h:99999",
    ],
)
def test_urls_that_cannot_be_meant_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        config(base_url=url)


@pytest.mark.parametrize("provider", CONFIGS)
@pytest.mark.parametrize("field", ["api_key", "key", "token"])
def test_a_literal_key_is_an_unknown_field(provider: str, field: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        config(provider, **{field: "sk-123"})


@pytest.mark.parametrize(
    ("provider", "name"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")]
)
def test_a_missing_key_for_the_vendor_names_its_variable(provider: str, name: str) -> None:
    with pytest.raises(MissingKeyError, match=name):
        check_key(config(provider))


@pytest.mark.parametrize("provider", CONFIGS)
def test_a_missing_key_that_was_named_is_an_error_everywhere(provider: str) -> None:
    with pytest.raises(MissingKeyError, match="MY_KEY"):
        check_key(config(provider, base_url="http://127.0.0.1:1", api_key_env="MY_KEY"))


@pytest.mark.parametrize("provider", CONFIGS)
def test_a_foreign_host_needs_no_default_key(provider: str) -> None:
    check_key(config(provider, base_url="http://127.0.0.1:1"))


def test_a_vendors_key_is_not_shown_to_another_host_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-vendor")

    assert config(base_url="http://127.0.0.1:1").key_variable is None
    assert (
        config(base_url="http://127.0.0.1:1", api_key_env="OPENAI_API_KEY").key_variable == "OPENAI_API_KEY"
    )


def test_connecting_without_a_needed_key_fails_before_anything_is_sent() -> None:
    with pytest.raises(MissingKeyError):
        connect(config())


@pytest.mark.parametrize("value", ["sk-1\nX-Evil: 1", "sk 1", "schlüssel"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_without_showing_it(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", value)

    with pytest.raises(MissingKeyError) as caught:
        check_key(config())

    assert value not in str(caught.value)


def test_white_space_around_a_key_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " sk-abc\n")

    assert credentials(config()) == ["sk-abc"]


def test_vllm_has_no_credential_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abc")

    assert credentials(config("vllm")) == []


def test_a_teacher_in_this_process_needs_no_key() -> None:
    local = TeacherConfig(provider="local", model="m")

    check_key(local)

    assert credentials(local) == []


@pytest.mark.parametrize(
    ("url", "at_vendor"),
    [
        ("https://api.openai.com", True),
        ("https://eu.api.openai.com", True),
        ("https://api.openai.com.evil.example", False),
        ("https://notapi.openai.com", False),
        ("http://127.0.0.1:8000", False),
    ],
)
def test_only_the_vendors_own_hosts_are_the_vendor(url: str, at_vendor: bool) -> None:
    assert config(base_url=url).at_vendor is at_vendor


@pytest.mark.parametrize("route", [None, "openrouter", "self-hosted"])
def test_openrouters_host_is_openrouter_whatever_route_is_declared(route: str | None) -> None:
    declared = config(base_url="https://openrouter.ai/api/v1", route=route)

    assert isinstance(declared, OpenAIConfig)
    assert declared.at_openrouter


def test_upstream_without_a_router_is_refused() -> None:
    with pytest.raises(ValidationError, match="openrouter"):
        config(base_url="http://127.0.0.1:1", upstream=["deepinfra"])


async def _body_at(server: Loopback, **fields: object) -> Body:
    teacher = connect(config(base_url=server.url, **fields))
    identity = TeacherIdentity("openai", "r", "p", "m")
    await teacher.answer(Request((Message("user", "hi"),), identity, Sampling(max_tokens=5)))
    await teacher.close()
    return server.requests[-1].body


async def test_openrouter_is_pinned_to_named_hosts_and_distillable_text() -> None:
    async with Loopback() as server:
        body = await _body_at(server, route="openrouter", upstream=["deepinfra"])

    assert body["provider"] == {
        "allow_fallbacks": False,
        "enforce_distillable_text": True,
        "only": ["deepinfra"],
    }


async def test_other_hosts_get_no_provider_pin() -> None:
    async with Loopback() as server:
        body = await _body_at(server, route="self-hosted")

    assert "provider" not in body


def test_importing_providers_loads_no_http_client() -> None:
    probe = (
        "import sys, synthgen.asking.providers, synthgen.asking.prices;"
        "print(sorted({'aiohttp', 'httptools', 'openai', 'anthropic', 'httpx', 'httpx2'} & set(sys.modules)))"
    )

    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"


async def test_loopback_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")

    async with Loopback() as server:
        body = await _body_at(server)

    assert body["model"] == "m"


@pytest.mark.parametrize(
    ("timeout_s", "max_tokens", "patience_s"),
    [(None, None, 900), (None, 1000, 900), (None, 32_000, 3200), (60, 32_000, 60)],
)
def test_an_answer_is_waited_for_as_long_as_a_slow_server_writes_it(
    timeout_s: float | None, max_tokens: int | None, patience_s: float
) -> None:
    config = OpenAIConfig(provider="openai", model="m", timeout_s=timeout_s)

    assert config.patience_s(max_tokens) == patience_s
