"""Several servers of one model as one teacher: what a recipe may say, and what a run over such a pool leaves behind."""

from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest
from pydantic import ValidationError

from synthgen.asking.providers import OpenAIConfig, RemoteTeacherConfig, VllmConfig
from tests.loopback import Act, Body, Loopback, refuse
from tests.runs import Recipe, cli, published_bytes, recipe, records, save, teacher

URLS = ["http://a:8000", "http://b:8000/v1/"]


def config(provider: type[RemoteTeacherConfig] = VllmConfig, /, **fields: object) -> RemoteTeacherConfig:
    return provider.model_validate({"provider": "vllm", "model": "m", **fields})


def pooled(*servers: Loopback, rows: int = 40, **changes: object) -> Recipe:
    """A recipe whose teacher is all of these servers."""
    qwen = teacher(servers[0], base_urls=[server.url for server in servers], **changes)
    del qwen["base_url"]
    return recipe(servers[0], rows, teachers={"qwen": qwen})


def endpoints(run: Path) -> Counter[str]:
    """How many answers each server gave, as lineage has it."""
    return Counter(pl.read_parquet(run / "lineage")["endpoint"].to_list())


def host(server: Loopback) -> str:
    return urlsplit(server.url).netloc


# What a recipe may say


def test_each_server_of_a_pool_is_the_teacher_at_its_own_address() -> None:
    pool = config(base_urls=URLS, pool="farm")

    assert pool.base_urls == ("http://a:8000/v1", "http://b:8000/v1")
    assert [one.base_url for one in pool.each_host()] == list(pool.base_urls)
    assert pool.host == "a"


def test_a_single_address_is_one_host() -> None:
    one = config(base_url="http://a:8000")

    assert one.each_host() == (one,)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"base_urls": URLS}, "needs `pool: NAME`"),
        ({"base_urls": URLS, "base_url": "http://a:8000", "pool": "farm"}, "not both"),
        ({"base_urls": [], "pool": "farm"}, "at least one URL"),
        ({"base_urls": "http://a", "pool": "farm"}, "a list"),
        ({"base_urls": ["http://a/v1", "http://a"], "pool": "farm"}, "twice"),
        ({"base_urls": ["http://a", "ftp://b"], "pool": "farm"}, "expected an http"),
    ],
)
def test_a_pool_that_cannot_be_meant_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(VllmConfig, **fields)


def test_the_vendors_host_is_in_no_pool_with_others() -> None:
    with pytest.raises(ValidationError, match="mixes the vendor's own hosts"):
        config(OpenAIConfig, base_urls=["https://api.openai.com", "http://a"], pool="farm")


def test_the_vendors_key_goes_to_no_server_of_a_pool() -> None:
    pool = config(OpenAIConfig, base_urls=URLS, pool="farm")

    assert [one.key_variable for one in (pool, *pool.each_host())] == [None] * 3


def test_a_pool_without_a_route_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with Loopback() as server:
        content = pooled(server)
        del content["teachers"]["qwen"]["route"]
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run")

        assert (result.code, server.requests) == (2, [])
    assert "route" in result.err


# A run over a pool


def test_a_slow_and_a_dying_server_cost_no_row_and_lineage_says_who_answered(tmp_path: Path) -> None:
    def dies(number: int, _body: Body) -> Act | None:
        return refuse(500) if number > 6 else None

    with (
        Loopback(latency_s=0.01) as fast,
        Loopback(latency_s=0.2) as slow,
        Loopback(latency_s=0.01, script=dies) as dying,
    ):
        content = pooled(fast, slow, dying, rows=120, limits={"concurrency": 4})
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")
        paid = {host(server): len(server.payments) for server in (fast, slow, dying)}

    assert (result.code, result.json["counts"]["accepted"]) == (0, 120)
    assert endpoints(tmp_path / "run") == paid
    assert sum(paid.values()) == 120
    assert paid[host(fast)] > 2 * paid[host(slow)] > 0
    assert 0 < paid[host(dying)] <= 6


def test_servers_may_move_within_a_pool_without_asking_again(tmp_path: Path) -> None:
    with Loopback() as first, Loopback() as second, Loopback() as third:
        path, run = tmp_path / "r.yaml", tmp_path / "run"
        assert cli("generate", save(path, pooled(first, second)), "-o", run).code == 0
        again = cli("generate", save(path, pooled(third)), "-o", run, "--json")
        alone = cli("generate", save(path, recipe(third, 40)), "-o", run, "--json")

    assert (again.json["sent"], alone.json["sent"]) == (0, 0)
    assert len(records(run)) == 40


def test_a_server_that_refuses_the_key_leaves_the_work_to_the_others(tmp_path: Path) -> None:
    with Loopback(script=lambda _number, _body: refuse(401)) as locked, Loopback() as open_:
        content = pooled(locked, open_, limits={"concurrency": 2})
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")

    assert (result.code, result.json["counts"]["accepted"]) == (0, 40)
    assert len(locked.requests) <= 2
    assert [
        f"qwen@{host(locked)} was not asked any more: auth" in line for line in result.json["warnings"]
    ] == [True]


def test_a_teacher_ends_with_the_last_of_its_servers(tmp_path: Path) -> None:
    with (
        Loopback(script=lambda _number, _body: refuse(401)) as one,
        Loopback(script=lambda _number, _body: refuse(402)) as other,
    ):
        content = pooled(one, other, limits={"concurrency": 2})
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run")

        assert len(one.requests) + len(other.requests) <= 4
    assert result.code == 3
    assert "stopped: teacher qwen: " in result.err


def test_a_server_that_limits_its_rate_sends_a_row_on_to_the_next(tmp_path: Path) -> None:
    with Loopback(script=lambda _number, _body: refuse(429, retry_after="3000")) as busy, Loopback() as free:
        content = pooled(busy, free, rows=10, limits={"concurrency": 1})
        result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "run", "--json")

    assert result.json["counts"]["accepted"] == 10
    assert len(free.payments) == 10


def test_rows_of_a_dead_teacher_wait_for_it_and_go_to_no_other(tmp_path: Path) -> None:
    broken = {"on": True}

    def down(_number: int, _body: Body) -> Act | None:
        return refuse(401) if broken["on"] else None

    with Loopback(script=down) as dead, Loopback() as alive:
        both = {"a": teacher(dead, pool="a"), "b": teacher(alive, pool="b")}
        content = recipe(dead, 40, teachers=both)
        content["steps"] = [{"name": "answer", "prompt": "answer", "teacher": {"a": 1, "b": 1}}]
        path = save(tmp_path / "r.yaml", content)
        stopped = cli("generate", path, "-o", tmp_path / "run", "--json")
        by_other = len(alive.payments)
        broken["on"] = False
        again = cli("generate", path, "-o", tmp_path / "run", "--json")

        assert (stopped.code, stopped.json["counts"]["pending"]) == (3, 40 - by_other)
        assert (again.code, len(dead.payments), len(alive.payments)) == (0, 40 - by_other, by_other)
    assert 0 < by_other < 40


def test_a_teacher_goes_on_while_another_one_stands_still(tmp_path: Path) -> None:
    def run(a: Loopback, b: Loopback, name: str) -> Path:
        both = {
            alias: teacher(server, pool=alias, give_up_after_s=4, limits={"concurrency": 4})
            for alias, server in (("a", a), ("b", b))
        }
        content = recipe(a, 600, teachers=both, refine={"chain": "sft_default"})
        content["steps"] = [{"name": "answer", "prompt": "answer", "teacher": {"a": 1, "b": 3}}]
        assert cli("generate", save(tmp_path / f"{name}.yaml", content), "-o", tmp_path / name).code == 0
        return tmp_path / name

    with Loopback() as good:
        # All but a few of the rows of b: what a window for both of them lets pass is less than half.
        still = Loopback(script=lambda _number, _body: refuse(503) if len(good.payments) < 400 else None)
        with still:
            stood_still = run(still, good, "still")
        other, another = Loopback(), Loopback()
        with other, another:
            healthy = run(other, another, "healthy")

    assert published_bytes(stood_still) == published_bytes(healthy)
    assert len(still.payments) == len(other.payments)
