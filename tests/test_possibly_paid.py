"""What a killed run may have paid for without an answer: said before more is spent, and by `show`."""

import signal
from pathlib import Path

import pytest

from synthgen.journal import is_locked, lock_run
from tests.loopback import Loopback
from tests.runs import Result, cli, recipe, save, teacher
from tests.test_cli import started, wait_for


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result]]:
    """A run killed with five requests at the server; what `show` says of it, plain and as JSON, and the resumed run."""
    folder = tmp_path_factory.mktemp("killed")
    price = {"input": 20, "output": 60}
    with Loopback(hold=10_000) as server:
        path = save(folder / "r.yaml", recipe(server, teachers={"qwen": teacher(server, price=price)}))
        process = started(path, folder / "run")
        wait_for(lambda: server.in_flight == 5, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with Loopback() as server:
        save(path, recipe(server, teachers={"qwen": teacher(server, price=price)}))
        shown = [cli("show", folder / "run"), cli("show", folder / "run", "--json")]
        resumed = cli("generate", path, "-o", folder / "run", "--json")
    return folder / "run", [*shown, resumed]


def test_show_tells_of_a_killed_run_what_may_have_been_paid(killed: tuple[Path, list[Result]]) -> None:
    run, (plain, as_json, _) = killed

    lost = as_json.json["usage"]["lost"]
    assert lost["requests"] == 5
    assert lost["reserved_usd"] > 5 * 200 * 60 / 1e6  # the whole `max_tokens`, and the prompts
    assert (
        f"5 sends never brought a reply and may have been paid (up to {lost['reserved_usd']:.6f}" in plain.out
    )
    assert f"`synthgen journal verify {run}` lists them" in plain.out
    assert as_json.json["running"] is False


def test_a_resumed_run_says_it_first_and_in_json(killed: tuple[Path, list[Result]]) -> None:
    _, (_, shown, resumed) = killed

    lost = shown.json["usage"]["lost"]
    assert resumed.code == 0
    assert resumed.err.startswith("5 sends never brought a reply and may have been paid (up to ")
    assert resumed.json["usage"]["lost"] == lost


def test_a_run_that_a_process_works_on_is_told_from_one_nobody_does(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    release = lock_run(tmp_path)
    assert is_locked(tmp_path)
    release()
    assert not is_locked(tmp_path)
