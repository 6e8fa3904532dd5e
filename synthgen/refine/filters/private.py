"""Credentials and personal data in completions.

In: a frame of the view. Out: verdicts with the reasons

    secrets  secret_aws | secret_github | secret_openai | secret_anthropic | secret_slack | secret_google |
             secret_stripe | secret_huggingface | secret_gitlab | secret_npm | secret_pypi | secret_jwt |
             secret_private_key
    pii      pii_credit_card | pii_iban | pii_us_ssn | pii_email | pii_phone | pii_ip

Guarantee: named formats only; numbers must pass their checksum or their range; values set aside for documentation
(RFC 2606 domains, RFC 5737 and 3849 addresses, 555 numbers, the card schemes' test numbers, vendors' example keys)
are kept. The value itself is repeated nowhere in a verdict.
Rejected: entropy (flags ordinary identifiers, detect-secrets#693) and named-entity models (milliseconds a row, a
download).
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Literal

import polars as pl

from synthgen.plugins import Plugin
from synthgen.recipe.model import Strict
from synthgen.refine.filters.text import completion, put
from synthgen.refine.verdict import Verdicts, nulls

__all__ = ["PII", "SECRETS", "PiiKind", "PiiParams", "SecretsParams", "pii", "private_values", "secrets"]

PiiKind = Literal["credit_card", "iban", "us_ssn", "email", "phone", "ip"]
Check = Callable[[str], bool]

# What every match of the patterns below has: cheap to look for, and absent from nearly all texts.
_GATES = {
    "secret_aws": "AKIA|ASIA|ABIA|ACCA",
    "secret_github": "gh[pousr]_|github_pat_",
    "secret_anthropic": "sk-ant",
    "secret_openai": "sk-(?:proj|svcacct|admin|[A-Za-z0-9]{20})",
    "secret_slack": "xox|hooks[.]slack",
    "secret_google": "AIza|GOCSPX-|ya29[.]",
    "secret_stripe": "k_live_",
    "secret_huggingface": "hf_",
    "secret_gitlab": "glpat-",
    "secret_npm": "npm_",
    "secret_pypi": "pypi-AgE",
    "secret_jwt": "eyJ",
    "secret_private_key": "PRIVATE KEY",
    "pii_credit_card": r"\d(?:[ -]?\d){3}(?:[ -]?\d){3}(?:[ -]?\d){6}",
    "pii_iban": r"[A-Z]{2}\d{2} ?[A-Z0-9]{4}",
    "pii_us_ssn": r"\d-\d{2}-\d",
    "pii_email": "@",
    "pii_phone": r"\+[1-9]|\d[-.]\d{4}",
    "pii_ip": r"\d\.\d{1,3}\.\d{1,3}\.\d|[0-9A-Fa-f]:[0-9A-Fa-f:]*:[0-9A-Fa-f]",
}

_SECRETS = {
    "secret_aws": r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    "secret_github": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b",
    "secret_anthropic": r"\bsk-ant-[a-z]{3,5}\d{2}-[A-Za-z0-9_-]{80,}",
    "secret_openai": r"\bsk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}|[A-Za-z0-9]{48})\b",
    "secret_slack": r"\bxox[abeoprs]-(?:\d{10,13}-){1,3}[A-Za-z0-9-]{16,}|\bhooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{24}",
    "secret_google": r"\bAIza[A-Za-z0-9_-]{35}\b|\bGOCSPX-[A-Za-z0-9_-]{28}\b|\bya29\.[A-Za-z0-9_-]{40,}",
    "secret_stripe": r"\b[rs]k_live_[A-Za-z0-9]{24,}\b",
    "secret_huggingface": r"\bhf_[A-Za-z]{34}\b",
    "secret_gitlab": r"\bglpat-[A-Za-z0-9_-]{20}\b",
    "secret_npm": r"\bnpm_[A-Za-z0-9]{36}\b",
    "secret_pypi": r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}",
    "secret_jwt": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}",
    "secret_private_key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\n)+(?:[A-Za-z0-9-]+: [^\n]*\s+)*(?:[A-Za-z0-9+/=]+(?:\s|\\n)*){1,3}",
}
_EXAMPLE = re.compile(
    r"(?i)example|sample|dummy|placeholder|redacted|your|xxxx|\.\.\.|1234567890|0123456789|abcdefgh|"
    # jwt.io's example payload starts {"sub":"1234567890"
    r"eyJzdWIiOiIxMjM0NTY3ODkwIi"
)


class SecretsParams(Strict):
    """No parameters: every format is anchored at its issuer's prefix, and a leaked key is never wanted."""


def secrets(frame: pl.DataFrame, params: SecretsParams) -> Verdicts:
    """A live-looking credential of a known format, in prose or in code."""
    return _verdicts(frame, {name: (pattern, _looks_live) for name, pattern in _SECRETS.items()})


def _looks_live(value: str) -> bool:
    """Not an example: no such word in it, and as many different characters as a random key has."""
    if "PRIVATE KEY" in value:
        body = re.sub(r"-----[A-Z0-9 ]+-----|\\n|\s", "", value)
        return len(body) >= 48 and len(set(body)) >= 16 and not _EXAMPLE.search(body)
    return not _EXAMPLE.search(value) and len(set(value)) >= 12


_PII: dict[PiiKind, str] = {
    "credit_card": r"\b\d(?:[ -]?\d){12,18}\b",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    "us_ssn": r"\b\d{3}-\d{2}-\d{4}\b",
    "email": r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\b",
    "phone": r"\+[1-9]\d{0,2}(?:[ .()/-]{0,2}\d){7,12}\b|(?:\(\d{3}\) ?|\b\d{3}[-. ])\d{3}[-.]\d{4}\b",
    "ip": r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9A-Fa-f]{1,4}(?::{1,2}[0-9A-Fa-f]{1,4}){3,7}\b",
}


class PiiParams(Strict):
    """`kinds`: which kinds reject. To flag some and reject others, put the filter in the chain twice.

    E-mail, phone and IP in model output are mostly invented; cards, account and social security numbers that pass
    their check are worth a rejection even so.
    """

    kinds: frozenset[PiiKind] = frozenset(_PII)


def pii(frame: pl.DataFrame, params: PiiParams) -> Verdicts:
    """Personal data that could be somebody's: valid by checksum or range, and not set aside for documentation."""
    wanted = {
        f"pii_{kind}": (pattern, _CHECKS[kind]) for kind, pattern in _PII.items() if kind in params.kinds
    }
    return _verdicts(frame, wanted)


def _verdicts(frame: pl.DataFrame, kinds: dict[str, tuple[str, Check]]) -> Verdicts:
    """The first kind with a valid match; candidates are found in columnar passes, checks run on those alone."""
    reason = nulls(frame.height, pl.String)
    if not kinds:
        return Verdicts(reason)
    # One pass for what any kind must have: polars keeps 32 patterns compiled, and compiles the others for every batch.
    gates = "|".join(_GATES[name] for name in kinds)
    maybe = frame.select(completion().str.contains(gates)).to_series()
    if not maybe.any():
        return Verdicts(reason)
    found = frame.filter(maybe).select(
        pl.when(completion().str.contains(_GATES[name]))
        .then(completion())
        .str.extract_all(pattern)
        .alias(name)
        for name, (pattern, _) in kinds.items()
    )
    said: list[str | None] = [None] * found.height
    for name, (_, check) in kinds.items():
        for row, values in enumerate(found[name].to_list()):
            if values and said[row] is None and any(check(value) for value in values):
                said[row] = name
    return Verdicts(put(reason, maybe, pl.Series(said, dtype=pl.String)))


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Test numbers that card schemes and payment services publish and tutorials copy.
_TEST_CARDS = _listed(
    "4111111111111111 4012888888881881 4222222222222 4242424242424242 4000056655665556 4000000000000002 "
    "4000000000000077 5555555555554444 5105105105105100 5200828282828210 2223003122003222 5424000000000015 "
    "378282246310005 371449635398431 378734493671000 6011111111111117 6011000990139424 30569309025904 "
    "38520000023237 3056930009020004 3530111333300000 3566002020360505 6200000000000005 5610591081018250 "
    "4532015112830366 4539578763621486 4916338506082832 5425233430109903 2222420000001113 4263982640269299 "
    "374245455400126 6250941006528599 4917484589897107 4001919257537193 4007702835532454 6362970000457013"
)
_CARD_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3})?(?:\d{3})?|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|2720\d{12}|3[47]\d{13}|"
    r"6(?:011|5\d\d|4[4-9]\d)\d{12}|3(?:0[0-5]|[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14}"
)


def _is_card(value: str) -> bool:
    """An issuer's range, Luhn's checksum (ISO/IEC 7812-1), grouped as one number, not a published test number."""
    separators = set(re.findall(r"\D", value))
    digits = re.sub(r"\D", "", value)
    if len(separators) > 1 or not _CARD_ISSUERS.fullmatch(digits) or digits in _TEST_CARDS:
        return False
    if separators and not re.fullmatch(r"\d{4}(?:.\d{4}){3}|\d{4}.\d{6}.\d{4,5}", value):
        return False
    doubled = [int(d) if i % 2 == 0 else sum(divmod(2 * int(d), 10)) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 3


# Lengths of the SWIFT IBAN registry.
_IBAN_LENGTHS = {
    entry[:2]: int(entry[2:])
    for entry in _listed(
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 "
        "ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
        "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 "
        "QA29 RO24 RS22 SA24 SC31 SD18 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    )
}
# Numbers the banks' own documentation uses.
_EXAMPLE_IBANS = _listed(
    "DE89370400440532013000 DE75512108001245126199 DE02120300000000202051 GB29NWBK60161331926819 "
    "GB82WEST12345698765432 GB33BUKB20201555555555 FR1420041010050500013M02606 FR7630006000011234567890189 "
    "ES9121000418450200051332 ES7921000813610123456789 IT60X0542811101000000123456 NL91ABNA0417164300 "
    "CH9300762011623852957 CH5604835012345678009 AT611904300234573201 BE68539007547034 BE71096123456769 "
    "PL61109010140000071219812874 SE4550000000058398257466 NO9386011117947 DK5000400440116243 "
    "FI2112345600000785 IE29AIBK93115212345678 PT50000201231234567890154 LU280019400644750000"
)


def _is_iban(value: str) -> bool:
    """Its country's length and ISO 7064's mod 97, not a published example."""
    compact = value.replace(" ", "")
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact) or compact in _EXAMPLE_IBANS:
        return False
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def _is_ssn(value: str) -> bool:
    """A number the US Social Security Administration can have issued, not one it has made invalid in public."""
    area, group, serial = value.split("-")
    if area in ("000", "666") or area >= "900" or group == "00" or serial == "0000":
        return False
    return value not in ("078-05-1120", "219-09-9999", "123-45-6789", "111-11-1111", "457-55-5462")


_SAFE_DOMAINS = re.compile(
    r"(?i)(?:^|\.)(?:example\.(?:com|org|net|edu|co\.\w+|\w\w)|[\w-]+\.(?:test|example|invalid|localhost|local|internal))$|"
    r"^(?:[\w-]*(?:your|my|some|acme|foo|sample|example|dummy|fake|test)[\w-]*|company|domain|email|mail|website|business|"
    r"abc|xyz|xyzcompany|abccompany|site|school|university|organization|corp|corporation|host|server)\.\w{2,6}$|"
    r"^(?:github|gitlab|bitbucket)\.(?:com|org)$"
)
_SAFE_MAILBOXES = re.compile(
    r"(?i)^(?:no-?reply|support|info|help|sales|contact|admin|hello|press|jobs|careers|hr|service|team|office|"
    r"webmaster|postmaster|abuse|security|privacy|billing|git|your[._-]?\w*|user(?:name)?|name|first\.?last|kontakt)$"
)


def _is_email(value: str) -> bool:
    """A personal mailbox: not at a domain set aside for examples (RFC 2606, RFC 6761), not a role."""
    mailbox, _, domain = value.partition("@")
    if _SAFE_MAILBOXES.match(mailbox) or _SAFE_DOMAINS.search(domain):
        return False
    return domain.rpartition(".")[2].isalpha() and len(domain.rpartition(".")[2]) >= 2


_SAFE_PHONES = re.compile(
    r"^1?\d{3}555\d{4}$|^1?555\d{7}$|"  # North America: 555 exchange, and area code 555
    r"^1?(?:800|833|844|855|866|877|888|900)\d{7}$|"  # toll-free: companies
    r"^(?:44|0044|0)?(?:1632960\d{3}|2079460\d{3}|7700900\d{3}|8081570\d{3}|1\d{2}4960\d{3})$|"  # Ofcom, for drama
    r"^0{0,2}(?:33)?0?(?:199|261|353|465|536|639)\d{6,7}$|"  # Arcep, for fiction
    r"^0{0,2}49(?:30|40|69|221|89)\d*(?:23125|66969|90009|4710|99998)\d*$"  # Bundesnetzagentur, for drama
)


def _is_phone(value: str) -> bool:
    """A number that can be dialled: 8 to 15 digits (E.164), not fictional, not counting up, down or on the spot."""
    digits = re.sub(r"\D", "", value)
    if not 8 <= len(digits) <= 15 or _SAFE_PHONES.match(digits):
        return False
    return len(set(digits)) >= 4 and not re.search(r"12345|23456|45678|98765|87654|0000|00-00", digits)


# Public resolvers everybody writes in examples.
_RESOLVERS = _listed(
    "8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 208.67.222.222 208.67.220.220 2606:4700:4700::1111 "
    "2001:4860:4860::8888"
)


def _is_ip(value: str) -> bool:
    """A globally routable address: not private, loopback or for documentation (RFC 5737, RFC 3849), no resolver."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    # A first octet below 10 is nearly always a version number.
    if address.version == 4 and int(value.split(".")[0]) < 10:
        return False
    return address.is_global and not address.is_multicast and value.lower() not in _RESOLVERS


_CHECKS: dict[PiiKind, Check] = {
    "credit_card": _is_card,
    "iban": _is_iban,
    "us_ssn": _is_ssn,
    "email": _is_email,
    "phone": _is_phone,
    "ip": _is_ip,
}

_KINDS: dict[str, tuple[str, Check]] = {
    **{name: (pattern, _looks_live) for name, pattern in _SECRETS.items()},
    **{f"pii_{kind}": (pattern, _CHECKS[kind]) for kind, pattern in _PII.items()},
}
# A whole key and not its beginning, which is enough to reject: nothing of it may be left.
_WHOLE = {
    "secret_private_key": _SECRETS["secret_private_key"] + r"(?:[A-Za-z0-9+/=\s\\]*-----END [A-Z0-9 ]+-----)?"
}
_COMPILED = {
    name: (re.compile(_GATES[name]), re.compile(_WHOLE.get(name, pattern)), check)
    for name, (pattern, check) in _KINDS.items()
}


def private_values(text: str) -> dict[str, str]:
    """Every credential and personal value in one text, as the filters find them, in order of place: value -> reason.

    For prompts on their way out, which come one by one.
    """
    found: list[tuple[int, str, str]] = []
    for reason, (gate, pattern, check) in _COMPILED.items():
        if gate.search(text):
            found += [(hit.start(), hit[0], reason) for hit in pattern.finditer(text) if check(hit[0])]
    values: dict[str, str] = {}
    for _, value, reason in sorted(found):
        values.setdefault(value, reason)
    return values


SECRETS = Plugin("secrets", SecretsParams, secrets)
PII = Plugin("pii", PiiParams, pii)
