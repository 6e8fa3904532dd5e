"""Azure, Bedrock and Vertex through the vendors' SDKs: their addresses, and credentials that change with time.

In: an endpoint with its cloud's particulars. Out: a `VendorSdk` for `SdkTransport`; wires and replies are those of the
plain dialects. Guarantees: a credential comes from the endpoint's key or from the cloud's own chain (AWS profiles and
roles, Google's application default credentials, Azure's default credential), never from an SDK's guess; where AWS
and Google hold nothing that is found when the teacher is connected, before anything is sent (Azure's chain cannot
tell unasked); a token is fetched off the loop, once for all who wait, minutes before it ends. A chain that fails
in the middle of a run is `auth` (the lane stops, its rows stay pending), a network that fails while it is asked is
`connect`.
Rejected: tokens fetched inside the SDKs (each request in flight refreshes on its own, and their errors do not tell a
network fault from a login that has ended).
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC

from synthgen.asking.outcome import TransportFailure
from synthgen.asking.transport.endpoint import Endpoint
from synthgen.asking.transport.sdk import NO_KEY, VendorSdk, capped, of_anthropic, of_openai
from synthgen.dataclasses import dataclass
from synthgen.errors import MissingKeyError, UsageError

__all__ = ["open_azure", "open_bedrock", "open_vertex"]

_AZURE_SCOPE = "https://cognitiveservices.azure.com/.default"
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# Metadata servers hand out a token until five minutes before its end; google-auth renews it this long before that.
_REFRESH_BEFORE_S = 225.0
# What a login's error says of itself; behind that some put whole replies.
_SAID_CHARS = 200
# The clouds' names of the API version that the Messages wire follows; the SDKs name their own, later one.
_BEDROCK_VERSION = {"anthropic_version": "bedrock-2023-05-31"}
_VERTEX_VERSION = {"anthropic_version": "vertex-2023-10-16"}


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    expires_at: float  # Unix seconds


class _Bearer:
    """The `Authorization` header with a token that is fetched anew before it expires."""

    def __init__(self, fetch: Callable[[], _Token]):
        """`fetch` may block; it raises `TransportFailure`."""
        self._fetch = fetch
        self._token = _Token("", 0.0)
        self._lock = asyncio.Lock()

    async def __call__(self) -> dict[str, str]:
        if self._is_old():
            async with self._lock:
                if self._is_old():
                    self._token = await asyncio.to_thread(self._fetch)
        return {"Authorization": f"Bearer {self._token.text}"}

    def _is_old(self) -> bool:
        return time.time() > self._token.expires_at - _REFRESH_BEFORE_S


def open_azure(endpoint: Endpoint, *, deployment: str, api_version: str | None, chain: bool) -> VendorSdk:
    """The v1 API, whose body names the deployment, or with `api_version` the older one, whose path does.

    Raises:
        UsageError: `chain` needs a package that is not installed.
    """
    import openai

    http_client = openai.DefaultAsyncHttpxClient(event_hooks={"response": [capped]})
    key = {"api-key": endpoint.key} if endpoint.key else {}
    credential = _Bearer(_azure_token()) if chain else None
    if api_version is None:
        client = openai.AsyncOpenAI(
            api_key=NO_KEY, base_url=endpoint.base_url, max_retries=0, http_client=http_client
        )
        return of_openai(client, key, credential=credential, fixed={"model": deployment})
    client = openai.AsyncAzureOpenAI(
        api_key=NO_KEY,
        azure_endpoint=endpoint.base_url.removesuffix("/openai/v1"),
        azure_deployment=deployment,
        api_version=api_version,
        max_retries=0,
        http_client=http_client,
    )
    return of_openai(client, key, credential=credential)


def open_bedrock(endpoint: Endpoint, *, region: str, profile: str | None) -> VendorSdk:
    """The runtime endpoint: with the endpoint's key as an API key, else signed (SigV4) by the AWS chain.

    Raises:
        MissingKeyError: the chain finds no credential, or no such profile.
        UsageError: boto3 is not installed.
    """
    refused = None if endpoint.key else _aws_chain(profile)
    if endpoint.dialect == "anthropic":
        import anthropic

        claude = anthropic.AsyncAnthropicBedrock(
            api_key=endpoint.key or NO_KEY,
            aws_region=region,
            base_url=endpoint.base_url,
            max_retries=0,
            open_telemetry=False,
            http_client=anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [capped]}),
        )
        # The constructor refuses a profile where the environment holds an API key, and takes that key unasked.
        claude.api_key, claude.aws_profile = endpoint.key, profile
        return of_anthropic(claude, {}, prefix="/v1", fixed=_BEDROCK_VERSION, refused=refused)
    import openai
    from openai.providers import bedrock

    provider = bedrock(
        endpoint="runtime",
        region=region,
        base_url=f"{endpoint.base_url}/openai/v1",
        api_key=endpoint.key,
        profile=profile,
    )
    client = openai.AsyncOpenAI(
        provider=provider,
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [capped]}),
    )
    return of_openai(client, {}, refused=refused)


def open_vertex(endpoint: Endpoint, *, project: str, region: str) -> VendorSdk:
    """Claude by its publisher path, everything else by the project's OpenAI endpoint.

    The endpoint's key is an access token; without one, Google's application default credentials fetch them.

    Raises:
        MissingKeyError: there are no default credentials.
        UsageError: google-auth is not installed.
    """
    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    credential = None if endpoint.key else _Bearer(_google_token())
    if endpoint.dialect == "anthropic":
        import anthropic

        claude = anthropic.AsyncAnthropicVertex(
            region=region,
            project_id=project,
            base_url=endpoint.base_url,
            max_retries=0,
            open_telemetry=False,
            http_client=anthropic.DefaultAsyncHttpxClient(event_hooks={"response": [capped]}),
        )
        return of_anthropic(claude, headers, credential=credential, prefix="/v1", fixed=_VERTEX_VERSION)
    import openai

    client = openai.AsyncOpenAI(
        api_key=NO_KEY,
        base_url=f"{endpoint.base_url}/projects/{project}/locations/{region}/endpoints/openapi",
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [capped]}),
    )
    return of_openai(client, headers, credential=credential)


def _aws_chain(profile: str | None) -> Callable[[Exception], TransportFailure | None]:
    """Checks that the chain holds a credential; afterwards tells what an error while signing means."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    except ImportError as error:
        raise _not_installed("bedrock", "boto3") from error
    try:
        found = boto3.Session(profile_name=profile).get_credentials()
    except BotoCoreError as error:
        raise MissingKeyError(f"AWS credentials: {error}") from error
    if found is None:
        raise MissingKeyError(
            "AWS credentials: none found (variables, profile, SSO, role); run `aws configure`, name a `profile`, or "
            "an API key's variable in api_key_env"
        )

    def refused(error: Exception) -> TransportFailure | None:
        # OpenAI's client wraps the cause, Anthropic's raises RuntimeError where credentials are gone.
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(cause, BotoCoreError | ClientError | RuntimeError):
            return _refused("AWS", cause, passing=isinstance(cause, HTTPClientError))
        return None

    return refused


def _google_token() -> Callable[[], _Token]:
    try:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
        from google.auth.transport.requests import Request
    except ImportError as error:
        raise _not_installed("vertex", "google-auth") from error
    try:
        credentials, _ = google.auth.default(scopes=[_GOOGLE_SCOPE])
    except DefaultCredentialsError as error:
        raise MissingKeyError(
            "Google credentials: none found; run `gcloud auth application-default login`, set "
            "GOOGLE_APPLICATION_CREDENTIALS, or name a variable with an access token in api_key_env"
        ) from error

    def fetch() -> _Token:
        try:
            credentials.refresh(Request())  # type: ignore[no-untyped-call]  # google-auth annotates little
        except GoogleAuthError as error:
            passing = isinstance(error, TransportError) or bool(error.retryable)
            raise _refused("Google", error, passing=passing) from error
        expiry = credentials.expiry  # UTC without saying so; None: never
        expires_at = expiry.replace(tzinfo=UTC).timestamp() if expiry else float("inf")
        return _Token(str(credentials.token), expires_at)

    return fetch


def _azure_token() -> Callable[[], _Token]:
    try:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity import DefaultAzureCredential
    except ImportError as error:
        raise _not_installed("azure", "azure-identity") from error
    credential = DefaultAzureCredential()

    def fetch() -> _Token:
        try:
            token = credential.get_token(_AZURE_SCOPE)
        except AzureError as error:
            passing = not isinstance(error, ClientAuthenticationError)  # also where there is no credential
            raise _refused("Azure", error, passing=passing) from error
        return _Token(token.token, float(token.expires_on))

    return fetch


def _refused(cloud: str, error: Exception, *, passing: bool) -> TransportFailure:
    said = f"{cloud} credentials: {str(error)[:_SAID_CHARS]}"
    return TransportFailure("connect" if passing else "auth", said, maybe_paid=False)


def _not_installed(provider: str, package: str) -> UsageError:
    return UsageError(f"provider `{provider}` needs {package}: pip install 'synthgen[{provider}]'")
