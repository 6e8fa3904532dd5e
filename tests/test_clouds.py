"""Azure, Bedrock and Vertex: what a recipe may say of them, where they are asked, and with whose credentials.

The SDKs are real, so are the sockets; the servers are on this machine. No cloud is asked for a credential: AWS and
Azure take theirs from the environment, Google's token server is the loopback one.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError

from synthgen.asking.clouds import CloudConfig
from synthgen.asking.outcome import Answer, Gate, LaneStop, Outcome, Retry, RowFailure
from synthgen.asking.providers import RemoteTeacher, credentials
from synthgen.errors import MissingKeyError, RecipeError, UsageError
from synthgen.journal import Circumstances, Reply
from synthgen.pipeline import open_gates
from synthgen.pipeline.resolve import resolve
from synthgen.plugins import load_plugin
from synthgen.recipe.load import load_recipe
from synthgen.types import Completion, Message, Request, Sampling, TeacherIdentity
from tests.loopback import DROP_AFTER, ENDLESS, HANG, HTML, TRUNCATE, Act, Loopback, Seen, refuse
from tests.runs import cli, recipe, save, teacher

KEY = "cloud-key-0123456789"
CLAUDE = "us.anthropic.claude-sonnet-4-20250514-v1:0"
ENVIRONMENT = (
    "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_KEY", "OPENAI_API_VERSION",
    "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
    "GOOGLE_APPLICATION_CREDENTIALS", "ANTHROPIC_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUD_KEY", KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))


@dataclass(frozen=True)
class Cloud:
    """One way to one model: what the recipe says, and the path it leads to."""

    provider: str
    fields: dict[str, str]
    path: str

    @property
    def anthropic(self) -> bool:
        return "claude" in self.fields["model"]


CLOUDS = {
    "azure": Cloud("azure", {"model": "gpt-4o", "deployment": "mine"}, "/openai/v1/chat/completions"),
    "azure-dated": Cloud(
        "azure",
        {"model": "gpt-4o", "deployment": "mine", "api_version": "2024-10-21"},
        "/openai/deployments/mine/chat/completions",
    ),
    "bedrock-claude": Cloud(
        "bedrock",
        {"model": CLAUDE, "region": "us-east-1"},
        f"/model/{CLAUDE}/invoke",
    ),
    "bedrock-open": Cloud(
        "bedrock",
        {"model": "openai.gpt-oss-120b-1:0", "region": "us-east-1"},
        "/openai/v1/chat/completions",
    ),
    "vertex-claude": Cloud(
        "vertex",
        {"model": "claude-sonnet-4@20250514", "region": "europe-west1", "project": "my-project"},
        "/v1/projects/my-project/locations/europe-west1/publishers/anthropic/models/"
        "claude-sonnet-4@20250514:rawPredict",
    ),
    "vertex-open": Cloud(
        "vertex",
        {"model": "google/gemini-2.5-flash", "region": "global", "project": "my-project"},
        "/v1/projects/my-project/locations/global/endpoints/openapi/chat/completions",
    ),
}


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> Cloud:
    return CLOUDS[str(request.param)]


def config(provider: str, **fields: object) -> CloudConfig:
    model = load_plugin("provider", provider).params
    validated = model.model_validate({"provider": provider, "model": "m", **fields})
    assert isinstance(validated, CloudConfig)
    return validated


@asynccontextmanager
async def connected(cloud: Cloud, server: Loopback, **fields: object) -> AsyncIterator[RemoteTeacher]:
    """A teacher of that cloud at the loopback server; with the loopback key where `fields` say nothing of it."""
    url = server.url.removesuffix("/v1")
    given = fields if "auth" in fields else {"api_key_env": "CLOUD_KEY", **fields}
    teacher = load_plugin("provider", cloud.provider).run(
        config(cloud.provider, base_url=url, **cloud.fields, **given)
    )
    assert isinstance(teacher, RemoteTeacher)
    try:
        yield teacher
    finally:
        await teacher.close()


def ask(cloud: Cloud) -> Request:
    return Request(
        messages=(Message("system", "Be brief."), Message("user", "Name a colour.")),
        teacher=TeacherIdentity(cloud.provider, "self-hosted", "loopback", cloud.fields["model"]),
        sampling=Sampling(temperature=0.5, max_tokens=64),
    )


async def outcome_of(cloud: Cloud, *acts: Act, **fields: object) -> tuple[Outcome, Loopback]:
    """What one request comes to, and the server that saw it."""
    async with (
        Loopback(reply=lambda _body: "Blue.", script=acts) as server,
        connected(cloud, server, **fields) as teacher,
    ):
        outcome = await teacher.answer(ask(cloud))
    return outcome, server


async def sent(cloud: Cloud, **fields: object) -> Seen:
    _, server = await outcome_of(cloud, **fields)
    return server.requests[0]


async def test_an_answer_carries_text_and_usage(cloud: Cloud) -> None:
    outcome, server = await outcome_of(cloud)

    assert isinstance(outcome, Answer)
    assert (outcome.completion.text, outcome.completion.finish_reason) == ("Blue.", "stop")
    assert outcome.completion.usage is not None
    assert outcome.completion.reply_id == server.payments[0].id


async def test_the_request_goes_to_the_path_of_the_model(cloud: Cloud) -> None:
    assert (await sent(cloud)).path == cloud.path


async def test_the_key_travels_in_the_clouds_header_and_in_no_other(cloud: Cloud) -> None:
    headers = (await sent(cloud)).headers

    carried = {name: value for name, value in headers.items() if KEY in value}
    expected = {"api-key": KEY} if cloud.provider == "azure" else {"authorization": f"Bearer {KEY}"}
    assert carried == expected
    assert not {"x-api-key", "openai-organization"} & headers.keys()


async def test_the_body_is_the_wires_as_the_cloud_wants_it(cloud: Cloud) -> None:
    body = (await sent(cloud)).body

    limit = "max_tokens" if cloud.anthropic or cloud.provider == "vertex" else "max_completion_tokens"
    assert body[limit] == 64
    if cloud.anthropic:
        version = {"bedrock": "bedrock-2023-05-31", "vertex": "vertex-2023-10-16"}[cloud.provider]
        assert (body["anthropic_version"], body["system"]) == (version, "Be brief.")
        assert "model" not in body
    elif "api_version" not in cloud.fields:
        assert body["model"] == cloud.fields.get("deployment", cloud.fields["model"])


@pytest.mark.parametrize(
    ("act", "kind", "reason"),
    [
        (refuse(429, retry_after="7"), Gate, "rate_limit"),
        (refuse(401), LaneStop, "auth"),
        (refuse(400), RowFailure, "invalid"),
        (HTML, Retry, "server_error"),
        (DROP_AFTER, Retry, "reset"),
        (TRUNCATE, Retry, "body"),
    ],
    ids=["429", "401", "400", "502", "dropped", "truncated"],
)
async def test_a_fault_means_what_it_means_everywhere(
    cloud: Cloud, act: Act, kind: type[Gate | LaneStop | RowFailure | Retry], reason: str
) -> None:
    outcome, server = await outcome_of(cloud, act)

    assert isinstance(outcome, kind)
    assert outcome.reason == reason
    assert len(server.requests) == 1


async def test_a_server_that_never_answers_times_out(cloud: Cloud) -> None:
    outcome, _ = await outcome_of(cloud, HANG, timeout_s=0.3)

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("timeout", True)


async def test_the_key_is_scrubbed_from_what_the_server_says(cloud: Cloud) -> None:
    echo = refuse(401, {"error": {"message": f"bad key {KEY}"}})

    outcome, _ = await outcome_of(cloud, echo)

    assert isinstance(outcome, LaneStop)
    assert "[credential]" in outcome.message
    assert KEY not in repr(outcome)


async def test_a_redirect_is_not_followed_and_carries_no_key_away(cloud: Cloud) -> None:
    async with Loopback() as elsewhere:
        act = Act("redirect", headers={"location": f"{elsewhere.url}/messages"})
        outcome, _ = await outcome_of(cloud, act)

    assert isinstance(outcome, LaneStop)
    assert elsewhere.requests == []


async def test_a_reply_above_the_cap_is_given_up(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthgen.asking.transport.sdk.BODY_CAP_BYTES", 2**20)

    outcome, _ = await outcome_of(cloud, ENDLESS, timeout_s=10)

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("body", True)


async def test_the_environment_adds_no_header(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "ANTHROPIC_API_KEY",
        "AZURE_OPENAI_AD_TOKEN",
    ):
        monkeypatch.setenv(name, "unrelated-secret")
    for name in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "X-Unrelated: unrelated-secret")
    if cloud.provider != "bedrock":
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "unrelated-secret")

    headers = (await sent(cloud)).headers

    assert not any("unrelated-secret" in value for value in headers.values())


# Amazon: requests are signed with what the chain finds.


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-never-leaves")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token-0123456789")


BEDROCK = pytest.mark.parametrize("name", ["bedrock-claude", "bedrock-open"])


@BEDROCK
async def test_bedrock_signs_with_the_chains_credentials(name: str, aws: None) -> None:
    headers = (await sent(CLOUDS[name], auth="chain")).headers

    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/us-east-1/bedrock/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] == "a-session-token-0123456789"
    assert "a-secret-that-never-leaves" not in str(headers)


@BEDROCK
async def test_a_profile_signs_whatever_else_the_environment_holds(
    name: str, aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "unrelated-secret")
    (tmp_path / "aws-credentials").write_text(
        "[lab]\naws_access_key_id = AKIDLAB\naws_secret_access_key = secret\n", encoding="utf-8"
    )

    headers = (await sent(CLOUDS[name], auth="chain", profile="lab")).headers

    assert "Credential=AKIDLAB/" in headers["authorization"]


@BEDROCK
async def test_an_aws_error_that_repeats_the_session_token_is_scrubbed(name: str, aws: None) -> None:
    said = "The Canonical String should have been x-amz-security-token:a-session-token-0123456789"

    outcome, _ = await outcome_of(CLOUDS[name], refuse(403, {"message": said}), auth="chain")

    assert isinstance(outcome, LaneStop)
    assert "x-amz-security-token:[credential]" in outcome.message


@BEDROCK
async def test_bedrock_without_credentials_fails_before_anything_is_sent(name: str) -> None:
    async with Loopback() as server:
        with pytest.raises(MissingKeyError, match="AWS credentials: none found"):
            async with connected(CLOUDS[name], server, auth="chain"):
                pass

    assert server.requests == []


@BEDROCK
async def test_credentials_that_end_in_the_middle_stop_the_lane(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    once = tmp_path / "once"
    giver = tmp_path / "giver.py"
    giver.write_text(
        "import json, pathlib, sys\n"
        f"once = pathlib.Path({str(once)!r})\n"
        "if once.exists(): sys.exit('the login has ended')\n"
        "once.touch()\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': 'AKID', 'SecretAccessKey': 's', 'SessionToken': 't' * 9,\n"
        "                  'Expiration': '2020-01-01T00:00:00Z'}))\n",
        encoding="utf-8",
    )
    (tmp_path / "aws").write_text(
        f"[profile short]\ncredential_process = {sys.executable} {giver}\n", encoding="utf-8"
    )

    outcome, server = await outcome_of(CLOUDS[name], auth="chain", profile="short")

    assert isinstance(outcome, LaneStop)
    assert outcome.reason == "auth"
    assert outcome.message.startswith("AWS credentials: ")
    assert server.requests == []


# Google: tokens are fetched by the application default credentials.


@pytest.fixture(scope="module")
def private_key() -> str:
    """A service account's key; making one takes a while."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def google_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str, token_url: str) -> None:
    """The application default credentials are a service account whose tokens come from `token_url`."""
    path = tmp_path / "service-account.json"
    account = {
        "type": "service_account",
        "project_id": "my-project",
        "client_email": "somebody@my-project.iam.gserviceaccount.com",
        "private_key": private_key,
        "token_uri": token_url,
    }
    path.write_text(json.dumps(account), encoding="utf-8")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))


class TokenServer:
    """Gives a token that lasts as long as it says, or an error status; counts how often it was asked."""

    def __init__(self, *, lasts_s: int = 3600, status: int = 200) -> None:
        self.asked = 0
        self.lasts_s = lasts_s
        self.status = status

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        finally:
            await runner.cleanup()

    async def _answer(self, _request: web.BaseRequest) -> web.Response:
        self.asked += 1
        if self.status != 200:
            return web.json_response({"error": "invalid_grant"}, status=self.status)
        token = {"access_token": f"google-token-{self.asked:08d}", "expires_in": self.lasts_s}
        return web.json_response(token)


VERTEX = pytest.mark.parametrize("name", ["vertex-claude", "vertex-open"])


@VERTEX
async def test_vertex_fetches_a_token_once_and_keeps_it(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str
) -> None:
    tokens, cloud = TokenServer(), CLOUDS[name]
    async with tokens.serve() as url, Loopback() as server:
        google_login(monkeypatch, tmp_path, private_key, url)
        async with connected(cloud, server, auth="chain") as teacher:
            await asyncio.gather(*(teacher.answer(ask(cloud)) for _ in range(8)))

    assert tokens.asked == 1
    assert {seen.headers["authorization"] for seen in server.requests} == {"Bearer google-token-00000001"}


async def test_a_token_about_to_expire_is_fetched_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str
) -> None:
    tokens, cloud = TokenServer(lasts_s=200), CLOUDS["vertex-open"]
    async with tokens.serve() as url, Loopback() as server:
        google_login(monkeypatch, tmp_path, private_key, url)
        async with connected(cloud, server, auth="chain") as teacher:
            for _ in range(2):
                await teacher.answer(ask(cloud))

    assert [seen.headers["authorization"][-1] for seen in server.requests] == ["1", "2"]


async def test_a_fetched_token_is_scrubbed_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str
) -> None:
    echo = refuse(401, {"error": {"message": "bad google-token-00000001"}})
    async with TokenServer().serve() as url:
        google_login(monkeypatch, tmp_path, private_key, url)
        outcome, _ = await outcome_of(CLOUDS["vertex-open"], echo, auth="chain")

    assert isinstance(outcome, LaneStop)
    assert outcome.message == "HTTP 401: bad [credential]"


async def test_a_login_that_google_refuses_stops_the_lane(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str
) -> None:
    async with TokenServer(status=400).serve() as url:
        google_login(monkeypatch, tmp_path, private_key, url)
        outcome, server = await outcome_of(CLOUDS["vertex-open"], auth="chain")

    assert isinstance(outcome, LaneStop)
    assert (outcome.reason, server.requests) == ("auth", [])


async def test_a_token_server_out_of_reach_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, private_key: str
) -> None:
    async with TokenServer().serve() as url:
        pass
    google_login(monkeypatch, tmp_path, private_key, url)

    outcome, _ = await outcome_of(CLOUDS["vertex-open"], auth="chain")

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("connect", False)


async def test_vertex_without_credentials_fails_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    async with Loopback() as server:
        with pytest.raises(MissingKeyError, match="gcloud auth"):
            async with connected(CLOUDS["vertex-open"], server, auth="chain"):
                pass

    assert server.requests == []


# Microsoft: tokens are fetched by the default credential; here by the command line tool's.


@pytest.fixture
def azure_cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """`az`, as if somebody were logged in."""
    tool = tmp_path / "bin" / "az"
    tool.parent.mkdir()
    token = json.dumps({"accessToken": "azure-token-0123456789", "expires_on": 4_000_000_000})
    tool.write_text(f"#!/bin/sh\necho '{token}'\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    return tool


AZURE = pytest.mark.parametrize("name", ["azure", "azure-dated"])


@AZURE
async def test_azure_sends_the_token_of_its_chain(name: str, azure_cli: Path) -> None:
    headers = (await sent(CLOUDS[name], auth="chain")).headers

    assert headers["authorization"] == "Bearer azure-token-0123456789"
    assert "api-key" not in headers


async def test_azure_without_a_login_stops_the_lane(azure_cli: Path) -> None:
    azure_cli.write_text("#!/bin/sh\necho 'please run az login' >&2; exit 1\n", encoding="utf-8")

    outcome, server = await outcome_of(CLOUDS["azure"], auth="chain")

    assert isinstance(outcome, LaneStop)
    assert (outcome.reason, server.requests) == ("auth", [])


# What a recipe may say.


@pytest.mark.parametrize(
    ("provider", "fields", "url"),
    [
        ("azure", {"base_url": "https://mine.openai.azure.com/"}, "https://mine.openai.azure.com/openai/v1"),
        (
            "azure",
            {"base_url": "https://mine.openai.azure.com/openai/v1/"},
            "https://mine.openai.azure.com/openai/v1",
        ),
        ("bedrock", {"region": "eu-west-1"}, "https://bedrock-runtime.eu-west-1.amazonaws.com"),
        ("bedrock", {"region": "cn-north-1"}, "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        (
            "vertex",
            {"region": "europe-west1", "project": "p"},
            "https://europe-west1-aiplatform.googleapis.com/v1",
        ),
        ("vertex", {"region": "global", "project": "p"}, "https://aiplatform.googleapis.com/v1"),
        ("vertex", {"region": "eu", "project": "p"}, "https://aiplatform.eu.rep.googleapis.com/v1"),
    ],
)
def test_the_address_follows_from_resource_or_region(provider: str, fields: dict[str, str], url: str) -> None:
    assert config(provider, **fields).base_url == url


@pytest.mark.parametrize(
    ("provider", "fields", "route"),
    [
        ("azure", {"base_url": "https://mine.openai.azure.com"}, "azure-openai"),
        ("azure", {"base_url": "https://mine.services.ai.azure.com"}, "azure-openai"),
        ("azure", {"base_url": "http://mine.openai.azure.com"}, None),
        ("azure", {"base_url": "https://openai.azure.com.evil.example"}, None),
        ("azure", {"base_url": "https://gateway.example/openai"}, None),
        ("bedrock", {"region": "us-east-1"}, "bedrock"),
        ("bedrock", {"region": "cn-north-1"}, "bedrock"),
        (
            "bedrock",
            {
                "region": "us-east-1",
                "base_url": "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            },
            "bedrock",
        ),
        (
            "bedrock",
            {"region": "us-east-1", "base_url": "https://ec2-1.compute-1.amazonaws.com", "auth": "chain"},
            None,
        ),
        ("vertex", {"region": "us", "project": "p"}, "vertex"),
        (
            "vertex",
            {"region": "global", "project": "p", "base_url": "http://127.0.0.1:1", "auth": "chain"},
            None,
        ),
    ],
)
def test_the_clouds_route_is_the_default_at_its_own_hosts_only(
    provider: str, fields: dict[str, str], route: str | None
) -> None:
    assert config(provider, **fields).cloud_route == route


@pytest.mark.parametrize(
    ("provider", "fields", "message"),
    [
        ("bedrock", {"region": "us-east-1", "base_url": "http://127.0.0.1:1"}, "auth: chain"),
        ("vertex", {"region": "us", "project": "p", "base_url": "http://127.0.0.1:1"}, "auth: chain"),
        ("vertex", {"region": "us", "project": "p", "auth": "key"}, "needs api_key_env"),
        ("bedrock", {"region": "us-east-1", "auth": "chain", "api_key_env": "K"}, "exclude each other"),
        ("bedrock", {}, "region"),
        ("bedrock", {"region": "x.evil.example/"}, "region"),
        ("vertex", {"region": "us", "project": "a/../b"}, "project"),
        ("azure", {}, "base_url"),
        ("azure", {"base_url": "https://mine.openai.azure.com", "deployment": "a/b"}, "deployment"),
        ("azure", {"base_url": "https://mine.openai.azure.com", "api_version": "latest"}, "api_version"),
        ("azure", {"base_url": "https://mine.openai.azure.com", "transport": "aiohttp"}, "transport"),
    ],
)
def test_what_cannot_be_meant_is_refused(provider: str, fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(provider, **fields)


def test_the_clouds_chain_is_not_shown_to_a_key_and_the_other_way_round() -> None:
    azure = config("azure", base_url="https://mine.openai.azure.com")
    amazon = config("bedrock", region="us-east-1")

    assert (azure.key_variable, azure.uses_chain) == ("AZURE_OPENAI_API_KEY", False)
    assert (amazon.key_variable, amazon.uses_chain) == (None, True)
    assert config("azure", base_url="http://127.0.0.1:1").key_variable is None


def test_the_key_counts_as_a_secret_to_be_kept_out_of_texts() -> None:
    assert credentials(config("bedrock", region="us-east-1", api_key_env="CLOUD_KEY")) == [KEY]


@pytest.mark.parametrize(
    ("model", "dialect", "maker"),
    [
        (CLAUDE, "anthropic", "claude-sonnet-4-20250514"),
        ("anthropic.claude-3-5-haiku-20241022-v1:0", "anthropic", "claude-3-5-haiku-20241022"),
        ("us-gov.anthropic.claude-3-haiku-20240307-v1:0", "anthropic", "claude-3-haiku-20240307"),
        ("anthropic.claude-opus-4-6-v1", "anthropic", "claude-opus-4-6"),
        ("openai.gpt-oss-120b-1:0", "openai", "openai.gpt-oss-120b-1:0"),
        ("qwen.qwen3-32b-v1:0", "openai", "qwen.qwen3-32b-v1:0"),
    ],
)
def test_bedrock_names_carry_the_makers_name(model: str, dialect: str, maker: str) -> None:
    teacher = config("bedrock", region="us-east-1", model=model)

    assert (teacher.dialect, teacher.maker_model) == (dialect, maker)


def test_vertex_names_carry_the_makers_name() -> None:
    teacher = config("vertex", region="us", project="p", model="claude-sonnet-4@20250514")

    assert (teacher.dialect, teacher.maker_model) == ("anthropic", "claude-sonnet-4-20250514")


@pytest.mark.parametrize(
    ("provider", "package", "fields"),
    [
        ("azure", "azure.identity", {"base_url": "http://127.0.0.1:1"}),
        ("bedrock", "boto3", {"region": "us-east-1"}),
        ("vertex", "google.auth", {"region": "us", "project": "p"}),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    provider: str, package: str, fields: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    teacher = config(provider, auth="chain", **fields)

    with pytest.raises(UsageError, match=re.escape(f"pip install 'synthgen[{provider}]'")):
        load_plugin("provider", provider).run(teacher)


def test_the_clouds_are_described_without_loading_an_sdk() -> None:
    probe = (
        "import sys, synthgen.asking.clouds;"
        "print(sorted({'openai', 'anthropic', 'boto3', 'botocore', 'google', 'azure', 'httpx2'} & set(sys.modules)))"
    )

    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"


# Whole runs.


@pytest.mark.parametrize(
    ("provider", "fields", "model"),
    [
        ("azure", {"deployment": "mine"}, "qwen3"),
        ("bedrock", {"region": "us-east-1"}, "qwen.qwen3-8b-v1:0"),
        ("vertex", {"region": "us", "project": "p"}, "qwen/qwen3-8b-maas"),
    ],
)
def test_a_run_through_a_cloud_is_published_and_holds_no_key(
    tmp_path: Path, provider: str, fields: dict[str, str], model: str
) -> None:
    with Loopback(served_model=model) as server:
        url = server.url.removesuffix("/v1")
        asked = teacher(
            server, provider=provider, base_url=url, model=model, api_key_env="CLOUD_KEY", **fields
        )
        path = save(tmp_path / "r.yaml", recipe(server, 5, teachers={"qwen": asked}))
        result = cli("generate", path, "-o", tmp_path / "run", "--json")

    assert (result.code, result.json["counts"]["accepted"]) == (0, 5), result.err
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert KEY.encode() not in written


def test_a_judgement_under_the_makers_name_is_the_teachers() -> None:
    claude = {
        "provider": "bedrock",
        "region": "us-east-1",
        "model": CLAUDE,
        "price": {"input": 3, "output": 15},
        "sampling": {"max_tokens": 9},
    }
    content = recipe(Loopback(), refine={"chain": "none", "judge": {"teacher": "claude"}})
    content["teachers"]["claude"] = claude

    resolved = resolve(load_recipe(content))
    gates = open_gates(resolved, date(2026, 11, 22))

    (judge,) = (part for part in resolved.parts if part.role == "judge-shipped")
    assert (judge.route, judge.model) == ("bedrock", "claude-sonnet-4-20250514")
    served = ("claude-sonnet-4-20250514", CLAUDE, "claude-haiku-4-20250514")
    at = Circumstances("judge", "claude", "", 1, 0.0, 0.0)
    replies = [
        Reply("k", Completion("4", "stop", served_model=name), None, None, None, at) for name in served
    ]
    assert resolved.panel is not None
    said = [resolved.panel.judges[0].read(reply) for reply in replies]
    assert [gates.misjudged(judgement) is None for judgement in said] == [True, True, False]


def test_two_resources_are_one_teacher_on_the_clouds_route() -> None:
    hosts = ["https://one.openai.azure.com", "https://two.openai.azure.com"]
    asked = {"provider": "azure", "base_urls": hosts, "pool": "ours", "model": "gpt-4o", "deployment": "mine"}

    spec = resolve(load_recipe(recipe(Loopback(), teachers={"qwen": asked}))).specs["qwen"]

    assert (spec.identity.route, spec.identity.pool) == ("azure-openai", "ours")
    assert [host.endpoint for host in spec.hosts] == ["one.openai.azure.com", "two.openai.azure.com"]


def test_claude_in_a_cloud_needs_max_tokens_as_everywhere() -> None:
    claude = {"provider": "bedrock", "region": "us-east-1", "model": CLAUDE}
    content = recipe(Loopback(), teachers={"qwen": claude})

    with pytest.raises(RecipeError, match="is required by this provider"):
        resolve(load_recipe(content))


def test_a_missing_key_is_named_with_its_teacher(tmp_path: Path) -> None:
    with Loopback() as server:
        asked = teacher(server, api_key_env="NO_SUCH_KEY")
        path = save(tmp_path / "r.yaml", recipe(server, 5, teachers={"qwen": asked}))
        result = cli("generate", path, "-o", tmp_path / "run")

    assert result.code == 2
    assert "teacher 'qwen': environment variable NO_SUCH_KEY is not set" in result.err
