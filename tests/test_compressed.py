"""Replies that come compressed although nobody asked: read where that can be, else kept, and their server stops."""

import base64
import gzip
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from synthgen.asking.outcome import Answer, LaneStop, Outcome, Retry
from synthgen.types import Request, Sampling
from tests.loopback import ANSWER, Act, Body, Loopback, refuse
from tests.runs import cli, recipe, save
from tests.test_ask import asking, ends_of, kinds, spec_of, text_of
from tests.test_client import KEY, Client, ask, client, provider
from tests.test_unanswered import generate

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["client", "provider"]  # fixtures


def raw_deflate(raw: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(raw) + packer.flush()


def in_two_frames(raw: bytes) -> bytes:
    return zstd.compress(raw[:9]) + zstd.compress(raw[9:])


def as_if_brotli(raw: bytes) -> bytes:
    """Nothing that anybody can read without brotli."""
    return b"\x8b\x00" + raw[::-1].hex().encode() + b"\xff"


def packed(coding: str, how: Callable[[bytes], bytes], act: Act = ANSWER) -> Act:
    return replace(act, headers={"content-encoding": coding}, packed=how)


BROTLI = packed("br", as_if_brotli)
REFUSED = refuse(401, {"error": {"message": "bad key"}})


async def outcome_of(client: Client, act: Act) -> Outcome:
    async with Loopback(script=[act], words=2000) as server, client.teacher(server.url) as teacher:
        return await teacher.answer(Request(ask().messages, ask().teacher, Sampling()))


@pytest.mark.parametrize(
    ("coding", "how"),
    [
        ("zstd", zstd.compress),
        ("ZSTD", in_two_frames),
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
    ],
    ids=["zstd", "frames", "gzip", "zlib", "deflate"],
)
async def test_a_compressed_answer_is_read(
    client: Client, coding: str, how: Callable[[bytes], bytes]
) -> None:
    outcome = await outcome_of(client, packed(coding, how))

    assert isinstance(outcome, Answer)
    assert len(outcome.completion.text.split()) == 2000


@pytest.mark.parametrize(
    ("coding", "how"), [("zstd", zstd.compress), ("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_a_compressed_answer_above_the_cap_is_given_up(
    client: Client, coding: str, how: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("direct", "aiohttp_transport", "sdk"):
        monkeypatch.setattr(f"synthgen.asking.transport.{module}.BODY_CAP_BYTES", 1000)

    outcome = await outcome_of(client, packed(coding, lambda _: how(bytes(10**6))[:1000]))

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid, outcome.body) == ("body", True, None)
    assert "larger than" in outcome.message


@pytest.mark.parametrize("coding", ["zstd", "gzip", "deflate"])
@pytest.mark.parametrize("how", [as_if_brotli, lambda raw: zstd.compress(raw)[:-1], lambda raw: b"\x28"])
async def test_broken_compression_is_asked_again_as_paid(
    client: Client, coding: str, how: Callable[[bytes], bytes]
) -> None:
    outcome = await outcome_of(client, packed(coding, how))

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("body", True)


@pytest.mark.parametrize("coding", ["br", "gzip, br", "compress"])
async def test_an_answer_in_an_unknown_compression_is_kept_as_it_came(client: Client, coding: str) -> None:
    came: list[bytes] = []

    def how(raw: bytes) -> bytes:
        came.append(as_if_brotli(raw))
        return came[0]

    outcome = await outcome_of(client, packed(coding, how))

    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.maybe_paid) == ("compressed", True)
    assert repr(coding) in outcome.message
    assert outcome.body is not None
    head, _, rest = outcome.body.partition(b";base64,")
    assert (head, base64.b64decode(rest)) == (coding.encode(), came[0])


async def test_what_comes_compressed_is_kept_without_the_key(client: Client) -> None:
    outcome = await outcome_of(client, packed("br", lambda _: b"\x8b" + KEY.encode() + b"\xff"))

    assert isinstance(outcome, Retry)
    assert outcome.body is not None
    assert base64.b64decode(outcome.body.partition(b",")[2]) == b"\x8b[credential]\xff"


@pytest.mark.parametrize("how", [as_if_brotli, gzip.compress])
async def test_a_refusal_that_cannot_be_read_is_still_one(
    client: Client, how: Callable[[bytes], bytes]
) -> None:
    outcome = await outcome_of(client, packed("br", how, REFUSED))

    assert isinstance(outcome, LaneStop)
    assert outcome.reason == "auth"


async def test_a_zstd_refusal_says_why(client: Client) -> None:
    outcome = await outcome_of(client, packed("zstd", zstd.compress, REFUSED))

    assert isinstance(outcome, LaneStop)
    assert "bad key" in outcome.message


@pytest.mark.parametrize("every", [1, 2], ids=["all", "every second"])
async def test_a_server_that_compresses_so_stops_after_a_few_and_fails_no_row(
    tmp_path: Path, every: int
) -> None:
    """Also where short answers come as they are, as most servers that compress have it."""

    def script(_number: int, body: Body) -> Act | None:
        return None if int(text_of(body)[1:]) % every else BROTLI

    async with (
        Loopback(script=script) as server,
        asking(tmp_path, spec_of(server.url, concurrency=4)) as asker,
    ):
        ends = await ends_of(asker, 300)
        stopped = asker.queues["big"].stopped

    assert set(ends) <= {"answer", "not asked: compressed", "not asked: unanswered"}
    assert kinds(tmp_path).count("X") == len(server.requests) - ends.count("answer") <= 3 + 4
    assert "F" not in kinds(tmp_path)
    assert "compressed with 'br'" in str(stopped)


async def test_one_request_that_always_comes_compressed_stops_its_server_and_stays_pending(
    tmp_path: Path,
) -> None:
    def script(_number: int, body: Body) -> Act | None:
        return BROTLI if text_of(body) == "q7" else None

    async with (
        Loopback(script=script) as server,
        asking(tmp_path, spec_of(server.url, concurrency=2)) as asker,
    ):
        ends = await ends_of(asker, 30)
        stopped, said = asker.queues["big"].stopped, dict(asker.unanswered)

    assert ends[7] == "not asked: unanswered"
    assert "compressed with 'br'" in str(stopped)
    assert said == {}  # nobody is told twice


async def test_the_other_servers_of_a_pool_go_on(tmp_path: Path) -> None:
    async with Loopback(script=lambda _number, _body: BROTLI) as broken, Loopback() as good:
        one = spec_of(broken.url)
        hosts = tuple(
            replace(one, alias=f"big@{name}", endpoint=name, config=spec_of(url).config)
            for name, url in (("broken", broken.url), ("good", good.url))
        )
        async with asking(tmp_path, replace(one, pool=hosts)) as asker:
            ends = await ends_of(asker, 60)

    assert ends == ["answer"] * 60


def test_a_run_says_what_to_do_and_shows_what_came(tmp_path: Path) -> None:
    with Loopback(script=lambda _number, _body: BROTLI) as server:
        result = generate(save(tmp_path / "r.yaml", recipe(server, 50)), tmp_path / "run")

    shown = cli("show", tmp_path / "run", "--unusable")

    assert (result.code, result.json["counts"]["failed"]) == (3, 0)
    assert "compressed with 'br'" in result.json["problem"]
    assert "turn compression off" in result.json["problem"]
    assert "br;base64,iw" in shown.out
