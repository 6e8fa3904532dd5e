"""Replies that were paid and cannot be used are kept, and shown: also what came of one that broke off."""

from pathlib import Path

import pytest

from tests.loopback import MALFORMED, TRUNCATE, Act, Loopback
from tests.runs import Result, cli, recipe, save, teacher

PRICE = {"input": 20, "output": 60}
NO_CHOICES = Act("refuse", 200, {"id": "1", "choices": "\x1b[31m"})


def asked(folder: Path, *acts: Act) -> Path:
    """A run of three rows whose first replies are such."""
    with Loopback(script=acts) as server:
        path = save(folder / "r.yaml", recipe(server, 3, teachers={"qwen": teacher(server, price=PRICE)}))
        assert cli("generate", path, "-o", folder / "run").code == 0
    return folder / "run"


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with broken JSON, half a body, and no choices."""
    return asked(tmp_path_factory.mktemp("unusable"), MALFORMED, TRUNCATE, NO_CHOICES)


@pytest.fixture(scope="module")
def shown(spoilt: Path) -> tuple[Result, Result]:
    """`show --unusable`, plain and as JSON."""
    return cli("show", spoilt, "--unusable"), cli("show", spoilt, "--unusable", "--json")


def test_each_is_shown_with_whose_it_is_and_what_it_cost(shown: tuple[Result, Result]) -> None:
    plain, whole = shown

    replies = whole.json["replies"]
    assert (plain.code, whole.code, len(replies)) == (0, 0, 3)
    for reply in replies:
        assert (reply["step"], reply["teacher"], len(reply["key"])) == ("answer", "qwen", 32)
        assert reply["usd"] > 200 * 60 / 1e6  # the whole `max_tokens`
        assert (
            f"{reply['key']}  step answer, teacher qwen: {reply['reason']}, {reply['usd']:.6f}" in plain.out
        )
    assert f"3 replies were paid and unusable, up to {whole.json['usd']:.6f} USD" in plain.out


def test_bodies_are_whole_in_json_also_one_that_broke_off(shown: tuple[Result, Result]) -> None:
    bodies = sorted(reply["body"] for reply in shown[1].json["replies"])

    assert all(body.startswith("{") for body in bodies)
    assert sum(body.endswith(",,") for body in bodies) == 1
    assert '{"id":"1","choices":"\\u001b[31m"}' in [body.replace(" ", "") for body in bodies]


def test_bodies_are_shown_escaped(shown: tuple[Result, Result]) -> None:
    assert "\x1b" not in shown[0].out


def test_the_summary_names_the_verb(spoilt: Path) -> None:
    assert f"`synthgen show {spoilt} --unusable` prints them" in cli("show", spoilt).out


def test_a_run_without_unusable_replies_has_none_to_show(tmp_path: Path) -> None:
    run = asked(tmp_path)

    assert cli("show", run, "--unusable").out == "0 replies were paid and unusable, up to 0.000000 USD\n"


def test_unusable_replies_are_those_of_all_rows() -> None:
    assert cli("show", "run", "--unusable", "--row", "0c").code == 2
