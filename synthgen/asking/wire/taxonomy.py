"""What a refused request means, for both dialects: status, error code and headers in, `Outcome` out.

In: an `HttpReply` that is no answer. Out: `Retry` (ask again), `Gate` (wait, nothing paid), `RowFailure` (this request
is wrong) or `LaneStop` (this endpoint answers nothing more). Messages are the vendor's own, 300 characters at most.
Guarantee: never raises. The error code is asked before the status, since quota arrives as 400, 402, 403 and 429.
Rejected: matching on messages wherever a code exists (wording changes without notice); the few matches left are
errors for which the vendor sends no code.
"""

import re

from synthgen.asking.outcome import Gate, HttpReply, LaneStop, Outcome, Retry, RowFailure
from synthgen.asking.wire.loose import as_list, as_object, as_text, shorten
from synthgen.asking.wire.waits import read_limits, read_wait
from synthgen.dataclasses import dataclass
from synthgen.types import JSONValue

__all__ = ["has_error", "no_object", "read_error", "unusable"]

_QUOTA = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "insufficient_balance",
    "exceeded_current_quota_error",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "linked_organization_spend_limit_reached",
    "linked_organization_billing_unavailable",
    "organization_on_hold",
}
_POLICY = {
    "content_policy_violation",
    "content_policy",
    "invalid_prompt",
    "content_filter",
    "moderation_blocked",
    "data_inspection_failed",
}
_MODEL = {"model_not_found", "invalid_model", "deployment_not_found", "deploymentnotfound"}
_CONTEXT = {"context_length_exceeded", "context_window_exceeded"}
# Bedrock answers 400 where an account's quota is used up for now.
_THROTTLED = {"throttlingexception", "servicequotaexceededexception"}
_OVERLOADED = {"overloaded_error", "engine_overloaded", "server_overloaded"}

# vLLM and Anthropic send no code for these two; the texts are from their servers.
_CONTEXT_TEXT = re.compile(
    r"maximum context length|prompt is too long|longer than the maximum model length"
    r"|exceeds? (?:the )?(?:available )?context|context window",
    re.IGNORECASE,
)
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<")
_BALANCE_TEXT = re.compile(r"credit balance is too low|insufficient (?:credits?|balance)", re.IGNORECASE)

_PATHS = ("/chat/completions", "/messages")  # what is asked below a base URL

# An error object inside a 200 has no status of its own but for its code.
_STATUS_OF = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "notfounderror": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


@dataclass(frozen=True, slots=True)
class _Fault:
    """An error body: its codes in lower case, its own status where it has one, and its message."""

    codes: frozenset[str]
    status: int | None
    message: str
    flagged: bool = False

    def says(self, codes: set[str]) -> bool:
        return not self.codes.isdisjoint(codes)


def has_error(payload: dict[str, JSONValue]) -> bool:
    """True if a body that came with a 200 is an error all the same (routers and gateways)."""
    return bool(payload.get("error")) or payload.get("object") == "error" or payload.get("type") == "error"


def unusable(reply: HttpReply, why: str) -> Retry:
    """A paid reply nobody can read: ask again, keep the bytes."""
    return Retry("bad_body", why, maybe_paid=True, body=reply.body)


def no_object(reply: HttpReply) -> Retry:
    """A 200 whose body is no JSON object: unusable, but for a page, which is a proxy's or a login's and was not paid.

    A page is the same trouble whatever its status, 200 or 502: asked again, and where it is all that comes, the rows
    stay pending. Of other bodies only the kind is said: they may hold an answer.
    """
    kind = reply.headers.get("content-type", "").partition(";")[0].strip()
    head = reply.body[:1024]
    if _PAGE.match(head) or (kind.lower() == "text/html" and _MARKUP.match(head)):
        return Retry("server_error", shorten(f"HTTP {reply.status}: {_page_text(reply.body)}"))
    said = f" but {kind}" if re.fullmatch(r"[\w.+/-]{1,60}", kind) and "json" not in kind else ""
    return unusable(reply, f"the body is no JSON object{said}")


def read_error(reply: HttpReply, payload: dict[str, JSONValue] | None, now: float) -> Outcome:
    """What this error reply means. `payload` is the parsed body, None where it is no JSON object."""
    fault = _fault_of(payload, reply)
    inside_200 = 200 <= reply.status < 300
    status = reply.status
    if inside_200:
        named = (_STATUS_OF[code] for code in sorted(fault.codes) if code in _STATUS_OF)
        status = fault.status or next(named, 500)
    own = f" ({fault.status})" if fault.status else ""
    head = f"HTTP {reply.status} with an error{own}" if inside_200 else f"HTTP {status}"
    said = shorten(f"{head}: {fault.message}")
    return _final(status, fault, reply, said) or _temporary(status, fault, reply, now, said, paid=inside_200)


def _final(status: int, fault: _Fault, reply: HttpReply, said: str) -> RowFailure | LaneStop | None:
    """Faults that the same request meets again, None for the others."""
    if 300 <= status < 400:
        return LaneStop(
            "endpoint", shorten(f"HTTP {status}: {_redirected(reply.headers.get('location', ''))}")
        )
    if status == 402 or fault.says(_QUOTA) or (status == 400 and _BALANCE_TEXT.search(fault.message)):
        return LaneStop("quota", said)
    if fault.says(_MODEL) or status in (404, 405, 410):
        return LaneStop("model", said if fault.codes else f"{said}; is base_url right?")
    if status in (400, 403) and (fault.flagged or fault.says(_POLICY)):
        return RowFailure("policy", said)
    if status in (401, 403, 407, 451):
        return LaneStop("auth", said)
    if status in (408, 409, 424, 425, 429, 499) or not 400 <= status < 500 or fault.says(_THROTTLED):
        return None
    if fault.says(_CONTEXT) or _CONTEXT_TEXT.search(fault.message):
        return RowFailure("context", said)
    return RowFailure("too_large" if status == 413 else "invalid", said)


def _redirected(target: str) -> str:
    """What to do about a redirect. It is never followed: the key would go along."""
    page = target.rstrip("/")
    path = next((path for path in _PATHS if page.endswith(path)), None)
    if path is not None and page != target:
        return (
            f"the server wants a slash behind {page}, which no base_url can give it; let the server, or the proxy "
            "before it, answer there without one"
        )
    if path is not None:
        todo = f"write `base_url: {target.removesuffix(path)}`"
    else:
        todo = "is base_url the address of an API, and does the server want a login first?"
    where = shorten(target, 100) or "nowhere"
    return f"base_url redirects to {where}, which is not followed, since the key would go along; {todo}"


def _temporary(
    status: int, fault: _Fault, reply: HttpReply, now: float, said: str, *, paid: bool
) -> Retry | Gate:
    wait, limits = read_wait(reply.headers, now), read_limits(reply.headers, now)
    if status == 429 or fault.says(_THROTTLED):
        if "resource_unavailable" in fault.codes or "resource unavailable" in fault.message.lower():
            return Gate("flex", wait.seconds, wait.exhausted, limits)
        reason = "ramp" if "ramp_limit_exceeded" in fault.codes else "rate_limit"
        return Gate(reason, wait.seconds, wait.exhausted, limits)
    if status in (503, 529) or fault.says(_OVERLOADED):
        return Gate("overloaded", wait.seconds, wait.exhausted, limits)
    return Retry(
        "busy" if 400 <= status < 499 else "server_error",
        said,
        wait_s=wait.seconds,
        maybe_paid=paid or status in (499, 504),
        body=reply.body if paid else None,
    )


def _fault_of(payload: dict[str, JSONValue] | None, reply: HttpReply) -> _Fault:
    if payload is None:
        return _Fault(frozenset(), None, _page_text(reply.body))
    inner = payload.get("error")
    error = inner if isinstance(inner, dict) else payload
    metadata = as_object(error.get("metadata"))
    named = (
        error.get("code"),
        error.get("type"),
        as_object(error.get("details")).get("error_code"),
        reply.headers.get("x-amzn-errortype", "").partition(":")[0],  # Bedrock names its errors there
    )
    codes = frozenset(code.lower() for code in named if isinstance(code, str) and code)
    texts = (
        as_text(inner),
        as_text(error.get("message")),
        _detail(error.get("detail")),
        as_text(metadata.get("raw")),
    )
    message = " | ".join(text for text in texts if text) or ", ".join(sorted(codes)) or "no message"
    return _Fault(codes, _status_in(error.get("code")), message, flagged="flagged_input" in metadata)


def _status_in(code: JSONValue) -> int | None:
    """OpenRouter and vLLM put the HTTP status into `code`, as a number or as its digits."""
    digits = str(code) if isinstance(code, int | str) else ""
    return int(digits) if re.fullmatch(r"[45]\d\d", digits, re.ASCII) else None


def _detail(detail: JSONValue) -> str:
    """FastAPI's `detail`: a text, or a list of `{loc, msg}`."""
    if isinstance(detail, str):
        return detail
    return "; ".join(filter(None, (as_text(as_object(item).get("msg")) for item in as_list(detail))))


def _page_text(body: bytes) -> str:
    """What a body that is no JSON says: the title of a proxy's HTML page, or its first characters."""
    text = body[:4096].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    if title:
        return f"HTML page {title[1].strip()!r}"
    return re.sub(r"<[^>]*>", " ", text).strip() or "empty body"
