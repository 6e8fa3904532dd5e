"""Teachers in somebody's cloud: Azure OpenAI, Amazon Bedrock and Google Vertex AI.

In: what a recipe says of them. Out: the same `RemoteTeacher` as for a vendor's own API, over that cloud's SDK
transport. Guarantees: the cloud's own route, whose terms are not the vendor's, is the default at the cloud's own hosts
and nowhere else; so is its chain of credentials (profiles, roles, logins): another host gets it only where the recipe
says `auth: chain`. A recipe holds no key; importing this module loads no SDK.

A cloud has its own names for models. `maker_model` is the name the maker gives the same one, which policy decides on
and which answers may carry. Rejected: the SDKs' own environment variables for endpoints and regions (the same recipe
would ask another place on another machine).
"""

import re
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from synthgen.asking.outcome import Wire
from synthgen.asking.providers import (
    RemoteTeacher,
    RemoteTeacherConfig,
    read_key,
    samples_at_once,
)
from synthgen.asking.transport.clouds import open_azure, open_bedrock, open_vertex
from synthgen.asking.transport.endpoint import Dialect, Endpoint
from synthgen.asking.transport.sdk import SdkTransport, VendorSdk
from synthgen.asking.wire.anthropic_messages import AnthropicMessagesWire
from synthgen.asking.wire.openai_chat import OpenAIChatWire
from synthgen.plugins import Plugin

__all__ = [
    "AZURE",
    "BEDROCK",
    "VERTEX",
    "AzureConfig",
    "BedrockConfig",
    "CloudConfig",
    "VertexConfig",
]

_REGION = r"^[a-z0-9-]+$"
_API_VERSION = r"^\d{4}-\d{2}-\d{2}(-preview)?$"
# Before this version, Azure knows only the older name of the limit.
_NEW_LIMIT_SINCE = "2024-09-01"
# `us.anthropic.claude-sonnet-4-20250514-v1:0`: where it may run, whose it is, its name, the cloud's version of it.
_BEDROCK_MODEL = re.compile(
    r"(?:[a-z]+(?:-[a-z]+)?\.)?(?P<maker>anthropic)\.(?P<model>.+?)(?:-v\d+)?(?::\d+)?"
)


class CloudConfig(RemoteTeacherConfig):
    """A teacher in a cloud. `auth`: `key` reads `api_key_env`, `chain` is the cloud's own way to find credentials."""

    vendor_hosts: ClassVar[re.Pattern[str]]
    vendor_route: ClassVar[str]
    by_chain: ClassVar[bool] = True

    base_url: str = Field(default="", validate_default=True)
    transport: Literal["sdk"] = "sdk"
    auth: Literal["key", "chain"] | None = None

    @property
    def at_vendor(self) -> bool:
        """True if `base_url` is one of the cloud's own hosts, over TLS."""
        return self.base_url.startswith("https://") and bool(self.vendor_hosts.fullmatch(self.host))

    @property
    def uses_chain(self) -> bool:
        """Whether the cloud's chain finds the credential: as said, else where no key is named and that is usual."""
        if self.auth is not None:
            return self.auth == "chain"
        return self.by_chain and "api_key_env" not in self.model_fields_set

    @property
    def key_variable(self) -> str | None:
        """The environment variable that holds the credential to send, None for the chain or for no credential."""
        if self.uses_chain:
            return None
        named = self.auth == "key" or self.at_vendor or "api_key_env" in self.model_fields_set
        return self.api_key_env if named else None

    @property
    def dialect(self) -> Dialect:
        """Which wire the model speaks there."""
        return "openai"

    @property
    def cloud_route(self) -> str | None:
        """The cloud's own at its own hosts."""
        return self.vendor_route if self.at_vendor else None

    @property
    def speaks_messages(self) -> bool:
        """Claude is asked so."""
        return self.dialect == "anthropic"

    @model_validator(mode="after")
    def _one_credential(self) -> "CloudConfig":
        if self.auth == "chain" and "api_key_env" in self.model_fields_set:
            raise ValueError("auth: chain and api_key_env exclude each other")
        if self.auth == "key" and not self.api_key_env:
            raise ValueError("auth: key needs api_key_env, the variable that holds it")
        if self.uses_chain and self.auth is None and not self.at_vendor:
            raise ValueError(
                "base_url is not the cloud's own host: say `auth: chain` if it may see your cloud credentials, "
                "or name the variable of another key in api_key_env"
            )
        return self


class AzureConfig(CloudConfig):
    """Azure OpenAI: `base_url: https://RESOURCE.openai.azure.com`.

    `model` is what is deployed, `deployment` your name for it where that is another. `api_version` asks the older API
    of that date instead of the v1 one.
    """

    vendor_hosts = re.compile(
        r"[\w-]+\.(?:(?:openai|cognitiveservices)\.azure\.(?:com|us|cn)|services\.ai\.azure\.com)"
    )
    vendor_route = "azure-openai"
    by_chain = False
    version_path = "/openai/v1"

    base_url: str = Field(validate_default=True)
    api_key_env: str | None = Field(default="AZURE_OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    deployment: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    api_version: str | None = Field(default=None, pattern=_API_VERSION)

    def most_logprobs(self) -> int | None:
        """As at OpenAI."""
        return 20

    def most_samples(self, *, seeded: bool) -> int:
        """As at OpenAI: with a seed one."""
        return 1 if seeded else samples_at_once(self.samples_per_request)


class BedrockConfig(CloudConfig):
    """Amazon Bedrock's runtime endpoint in `region`: Claude by its Messages dialect, other models by OpenAI's.

    `profile` is one of `~/.aws/config`. An API key of Bedrock's own is used where `api_key_env` names it.
    """

    vendor_hosts = re.compile(
        r"(?:[\w-]+\.)?bedrock-runtime(?:-fips)?\.[a-z0-9-]+\.(?:vpce\.)?amazonaws\.com(?:\.cn)?"
    )
    vendor_route = "bedrock"
    version_path = ""

    region: str = Field(pattern=_REGION)
    profile: str | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _at_region(cls, values: object) -> object:
        return _with_url(values, "https://bedrock-runtime.{}.amazonaws.com", china=".cn")

    @property
    def dialect(self) -> Dialect:
        """Claude is the one family there with its own dialect."""
        return "anthropic" if _BEDROCK_MODEL.fullmatch(self.model) else "openai"

    @property
    def maker_model(self) -> str:
        """`claude-sonnet-4-20250514` of `us.anthropic.claude-sonnet-4-20250514-v1:0`; others keep their name."""
        found = _BEDROCK_MODEL.fullmatch(self.model)
        return found["model"] if found else self.model


class VertexConfig(CloudConfig):
    """Vertex AI in `region`, paid by `project`: Claude by its Messages dialect, `maker/model` by OpenAI's.

    A variable named in `api_key_env` holds an access token, which ends after an hour.
    """

    vendor_hosts = re.compile(r"(?:[a-z0-9-]+-)?aiplatform(?:\.(?:us|eu)\.rep)?\.googleapis\.com")
    vendor_route = "vertex"

    project: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9.:-]*$")
    region: str = Field(pattern=_REGION)

    @model_validator(mode="before")
    @classmethod
    def _at_region(cls, values: object) -> object:
        region = values.get("region") if isinstance(values, dict) else None
        shared = {"global": "aiplatform", "us": "aiplatform.us.rep", "eu": "aiplatform.eu.rep"}
        return _with_url(values, f"https://{shared.get(str(region), '{}-aiplatform')}.googleapis.com/v1")

    @property
    def dialect(self) -> Dialect:
        """Claude is the one family there with its own dialect."""
        return "anthropic" if self.model.startswith("claude") else "openai"

    @property
    def maker_model(self) -> str:
        """`claude-sonnet-4-20250514` of `claude-sonnet-4@20250514`, the bare name of `publisher/model`s."""
        return self.model.replace("@", "-") if self.dialect == "anthropic" else self.model


def _with_url(values: object, pattern: str, *, china: str = "") -> object:
    """`values` with the region's host where no address is written."""
    if not isinstance(values, dict) or not {"base_url", "base_urls"}.isdisjoint(values):
        return values
    region = str(values.get("region", ""))
    return {**values, "base_url": pattern.format(region) + (china if region.startswith("cn-") else "")}


def _connect_azure(config: AzureConfig) -> RemoteTeacher:
    endpoint = _endpoint(config)
    sdk = open_azure(
        endpoint,
        deployment=config.deployment or config.model,
        api_version=config.api_version,
        chain=config.uses_chain,
    )
    old = config.api_version is not None and config.api_version < _NEW_LIMIT_SINCE
    wire = OpenAIChatWire(max_tokens_field="max_tokens" if old else "max_completion_tokens")
    return _teacher(config, endpoint, sdk, wire)


def _connect_bedrock(config: BedrockConfig) -> RemoteTeacher:
    endpoint = _endpoint(config)
    sdk = open_bedrock(endpoint, region=config.region, profile=config.profile)
    claude = config.dialect == "anthropic"
    wire = AnthropicMessagesWire() if claude else OpenAIChatWire(max_tokens_field="max_completion_tokens")
    return _teacher(config, endpoint, sdk, wire)


def _connect_vertex(config: VertexConfig) -> RemoteTeacher:
    endpoint = _endpoint(config)
    sdk = open_vertex(endpoint, project=config.project, region=config.region)
    wire = AnthropicMessagesWire() if config.dialect == "anthropic" else OpenAIChatWire()
    return _teacher(config, endpoint, sdk, wire)


def _endpoint(config: CloudConfig) -> Endpoint:
    return Endpoint(config.base_url, config.dialect, read_key(config), config.connect_timeout_s)


def _teacher(config: CloudConfig, endpoint: Endpoint, sdk: VendorSdk, wire: Wire) -> RemoteTeacher:
    return RemoteTeacher(wire, SdkTransport(endpoint, sdk), patience_s=config.patience_s)


AZURE = Plugin("azure", params=AzureConfig, run=_connect_azure)
BEDROCK = Plugin("bedrock", params=BedrockConfig, run=_connect_bedrock)
VERTEX = Plugin("vertex", params=VertexConfig, run=_connect_vertex)
