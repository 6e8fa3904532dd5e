"""A credential is used and found nowhere: not in the run folder, not on stdout, not on stderr."""

from pathlib import Path

import pytest

from tests.loopback import ECHO_KEY, Loopback, refuse
from tests.runs import Result, cli, recipe, save, teacher

KEY = "sk-very-secret-0123456789abcdef"


@pytest.fixture(params=["auto", "aiohttp", "sdk"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LAB_KEY", KEY)
    return str(request.param)


@pytest.fixture(params=["vllm", "openai", "anthropic"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def leaks(folder: Path, *results: Result) -> list[str]:
    """Where the key can be read."""
    texts = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert texts
    for number, result in enumerate(results):
        texts |= {f"stdout {number}": result.out.encode(), f"stderr {number}": result.err.encode()}
    return [name for name, text in texts.items() if KEY.encode() in text]


def keyed(server: Loopback, folder: Path, provider: str, transport: str) -> Path:
    changes = {"provider": provider, "transport": transport, "api_key_env": "LAB_KEY"}
    return save(folder / "r.yaml", recipe(server, 2, teachers={"qwen": teacher(server, **changes)}))


def test_a_key_that_was_used_is_found_nowhere(provider: str, transport: str, tmp_path: Path) -> None:
    with Loopback() as server:
        path = keyed(server, tmp_path, provider, transport)
        results = [
            cli("generate", path, "-o", tmp_path / "run", "--json"),
            cli("plan", path),
            cli("show", tmp_path / "run", "--json"),
        ]

    assert results[0].code == 0
    assert all(KEY in str(seen.headers) for seen in server.requests)
    assert leaks(tmp_path, *results) == []


def test_a_key_that_a_401_repeats_is_found_nowhere(provider: str, transport: str, tmp_path: Path) -> None:
    with Loopback(script=[ECHO_KEY, ECHO_KEY]) as server:
        path = keyed(server, tmp_path, provider, transport)
        result = cli("generate", path, "-o", tmp_path / "run")

    assert result.code == 3
    assert "Incorrect API key provided" in result.err
    assert leaks(tmp_path, result) == []


def test_a_key_that_a_failed_row_repeats_is_found_nowhere(
    provider: str, transport: str, tmp_path: Path
) -> None:
    def script(_number: int, _body: object) -> object:
        return refuse(400, {"error": {"message": f"cannot serve {KEY}", "type": "invalid_request_error"}})

    with Loopback(script=script) as server:  # type: ignore[arg-type]
        path = keyed(server, tmp_path, provider, transport)
        result = cli("generate", path, "-o", tmp_path / "run", "--json")

    assert result.json["counts"]["failed"] == 2
    assert leaks(tmp_path, result) == []


def test_an_interpolated_variable_stays_a_name_in_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loopback() as server:
        monkeypatch.setenv("LAB_URL", server.url)
        path = save(
            tmp_path / "r.yaml", recipe(server, 1, teachers={"qwen": teacher(server, base_url="${LAB_URL}")})
        )
        assert cli("generate", path, "-o", tmp_path / "run").code == 0

    stored = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "${LAB_URL}" in stored
    assert server.url not in stored
