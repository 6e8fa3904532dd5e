"""The command line: help, exit codes, signals, what is printed where."""

import io
import json
import pkgutil
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

import synthgen
from synthgen.asking import Budget, Lane
from synthgen.asking.lanes.quotas import Place
from synthgen.assets import package_version
from synthgen.cli.live import Pace, plain_line, render, watching
from synthgen.dataset import verify
from synthgen.pipeline import Progress
from synthgen.recipe.model import Limits
from tests.loopback import MALFORMED, Loopback, LoopbackProcess, refuse
from tests.runs import cli, graded, recipe, records, save

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("openai", "anthropic", "polars", "datasketch", "aiohttp", "torch", "numpy")
VERBS = ("generate", "cancel", "plan", "filter", "show", "list", "schema")


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(reply=graded) as running:
        yield running


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['synthgen', '--help']\n"
        "from synthgen.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert python(code).splitlines()[-1] == "[]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, synthgen; print([name for name in {HEAVY} if name in sys.modules])"

    assert python(code).strip() == "[]"


def test_running_the_module_is_running_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "synthgen", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    result = cli(verb, "--help")

    assert result.code == 0
    assert verb in result.out


@pytest.mark.parametrize(
    "arguments", [["generat"], ["generate"], ["generate", "r.yaml", "--no-such"], ["generate", "r.yaml", "--max-cost", "-1"], ["filter", "x"], ["list", "prompt"]]
)  # fmt: skip
def test_a_wrong_command_line_is_exit_2_on_stderr(arguments: list[str]) -> None:
    result = cli(*arguments)

    assert (result.code, result.out) == (2, "")
    assert "Traceback" not in result.err
    assert result.err


def test_the_version_is_told() -> None:
    assert cli("--version").out == f"synthgen {package_version()}\n"


def test_a_pipe_gets_whole_lines() -> None:
    (line,) = [line for line in cli("list", "prompts").out.splitlines() if line.startswith("answer ")]

    assert "instruction, context, system" in line
    assert "context and a system message are optional" in line


def test_a_near_miss_of_a_listing_is_told() -> None:
    assert "did you mean 'prompts'?" in cli("list", "prompt").err


def test_every_export_of_the_package_is_there() -> None:
    assert sorted(synthgen.__all__) == synthgen.__all__
    assert all(callable(getattr(synthgen, name)) for name in synthgen.__all__)


def test_every_module_lists_what_it_exports() -> None:
    for module in pkgutil.iter_modules([str(ROOT / "synthgen" / "pipeline")], "synthgen.pipeline."):
        found = __import__(module.name, fromlist=["__all__"])
        assert all(hasattr(found, name) for name in found.__all__), module.name


def test_list_prompts_names_inputs_and_outputs() -> None:
    listed = {row["name"]: row for row in cli("list", "prompts", "--json").json["prompts"]}

    assert "instruction" in listed["answer"]["inputs"]
    assert listed["answer"]["outputs"] == ["response"]


def test_list_filters_names_chains_and_filters() -> None:
    listed = cli("list", "filters", "--json").json

    assert "sft_default" in [row["name"] for row in listed["chains"]]
    assert "language" in [row["name"] for row in listed["filters"]]


def test_list_teachers_names_providers_routes_and_prices() -> None:
    listed = cli("list", "teachers", "--json").json

    assert {row["name"] for row in listed["providers"]} >= {
        "openai",
        "anthropic",
        "azure",
        "bedrock",
        "vertex",
        "vllm",
        "local",
    }
    assert "self-hosted" in [row["name"] for row in listed["routes"]]
    prices = listed["prices_usd_per_million_tokens"]
    assert all(row["as_of"] and row["output"] > 0 for row in prices)


@pytest.mark.parametrize("what", ["prompts", "filters", "teachers"])
def test_every_list_has_a_form_for_people(what: str) -> None:
    result = cli("list", what)

    assert result.code == 0
    assert len(result.out.splitlines()) > 3


def test_schema_prints_json() -> None:
    assert json.loads(cli("schema").out)["title"] == "synthgen recipe"


def test_generate_as_json_prints_json_and_nothing_else_on_stdout(server: Loopback, tmp_path: Path) -> None:
    result = cli("generate", save(tmp_path / "r.yaml", recipe(server)), "-o", tmp_path / "run", "--json")

    assert result.json["exit_code"] == 0
    assert result.err == ""


def test_a_problem_is_in_the_json_and_on_stderr(server: Loopback, tmp_path: Path) -> None:
    path = save(tmp_path / "r.yaml", recipe(server, target=50))

    result = cli("generate", path, "-o", tmp_path / "run", "--json")

    assert (result.code, result.json["exit_code"]) == (3, 3)
    assert result.json["problem"] in result.err


def test_generate_for_people_tells_funnel_usage_and_place(server: Loopback, tmp_path: Path) -> None:
    result = cli("generate", save(tmp_path / "r.yaml", recipe(server)), "-o", tmp_path / "run")

    for expected in ("planned", "accepted", "answer", "sent 5 requests", f"dataset: {tmp_path / 'run'}"):
        assert expected in result.out


def test_generate_tells_what_the_server_said_where_candidates_failed(tmp_path: Path) -> None:
    payload = {"error": {"message": "max_tokens is not supported"}}
    with Loopback(script=lambda n, _b: refuse(400, payload) if n == 1 else None) as server:  # type: ignore[arg-type]  # JSON
        path = save(tmp_path / "r.yaml", recipe(server, 3))
        result = cli("generate", path, "-o", tmp_path / "run")

    (line,) = [line for line in result.out.splitlines() if line.startswith("ask/invalid, for example ")]
    row = line.split()[3].rstrip(":")
    assert line.endswith("max_tokens is not supported")
    assert f"ask/invalid, for example {row}" in cli("show", tmp_path / "run").out
    assert cli("show", tmp_path / "run", "--row", row, "--json").json["outcome"] == "failed"


def test_generate_tells_which_other_model_answered(tmp_path: Path) -> None:
    with Loopback(served_model="gpt-4o") as server:
        path = save(tmp_path / "r.yaml", recipe(server, 3))
        result = cli("generate", path, "-o", tmp_path / "run", "--json")

    assert result.json["examples"]["policy/served_identity"].endswith("asked for qwen3, gpt-4o answered")


def test_generate_tells_of_replies_that_were_paid_for_nothing(tmp_path: Path) -> None:
    with Loopback(script=[MALFORMED]) as server:
        path = save(tmp_path / "r.yaml", recipe(server, 3))
        result = cli("generate", path, "-o", tmp_path / "run")

    assert result.code == 0
    assert "1 replies were paid and unusable" in result.out


def test_without_a_folder_the_run_is_named_after_the_recipe(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    cli("generate", save(tmp_path / "r.yaml", recipe(server)))

    assert len(records(tmp_path / "runs" / "small")) == 5


def test_what_a_server_says_cannot_steer_the_terminal(tmp_path: Path) -> None:
    payload = {"error": {"message": "bad \x1b]0;owned\x07 key", "code": "invalid_api_key"}}
    with Loopback(script=lambda _n, _b: refuse(401, payload)) as server:  # type: ignore[arg-type]  # JSON
        result = cli("generate", save(tmp_path / "r.yaml", recipe(server)), "-o", tmp_path / "run")

    assert result.code == 3
    assert "bad " in result.err
    assert not {"\x1b", "\x07"} & set(result.err + result.out)


def test_a_bug_is_exit_1_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oh no")

    monkeypatch.setattr("synthgen.api.show", broken)

    result = cli("show", "x")

    assert result.code == 1
    assert "Traceback" in result.err
    assert "this is a bug (RuntimeError)" in result.err


def test_a_reader_that_hangs_up_is_no_error(server: Loopback, tmp_path: Path) -> None:
    command = f"{sys.executable} -m synthgen list filters --json | head -c 5"

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, check=False
    )

    assert done.returncode == 0
    assert done.stderr == b""


def busy_progress() -> Progress:
    progress = Progress(name="demo", phase="asking", rows_total=10, rows_done=4)
    lane = Lane("qwen", Limits(concurrency=4))
    lane.counts.in_flight, lane.counts.rate_limited, lane.counts.output_tokens = 3, 2, 500
    progress.lanes = {"qwen": lane}
    progress.budget = Budget(2.0, 0.25)
    progress.counts.outcomes = {"accepted": 3, "rejected": 1}
    progress.counts.reasons = {("filter:length", "empty"): 1}
    return progress


def test_the_live_view_shows_rows_speed_spend_lanes_and_reasons() -> None:
    console = Console(file=io.StringIO(), width=120, record=True)

    console.print(render(busy_progress(), Pace()))

    shown = console.export_text()
    for expected in (
        "demo asking",
        "4/10",
        "0.2500/2 USD",
        "qwen",
        "accepted 3",
        "filter:length/empty",
        "ETA",
    ):
        assert expected in shown


def test_a_plain_line_tells_the_same() -> None:
    line = plain_line(busy_progress(), Pace())

    assert line.startswith("asking | rows 4/10 | accepted 3, rejected 1 | 3 in flight | ")
    assert "0.2500/2 USD" in line


def ahead_progress(*still: str) -> Progress:
    progress = busy_progress()
    progress.rows_ahead, progress.still = 1200, still
    return progress


def test_the_live_view_says_for_whom_rows_wait_while_others_are_asked_ahead() -> None:
    console = Console(file=io.StringIO(), width=120, record=True)

    console.print(render(ahead_progress("big", "late"), Pace()))

    assert "1200 further rows asked ahead of those that wait for big, late" in console.export_text()


def test_a_plain_line_says_that_rows_asked_ahead_come_in_their_turn() -> None:
    line = plain_line(ahead_progress(), Pace())

    assert line.endswith("1200 further rows asked ahead, whose turn comes")


def asking_progress(done: int, *, sent: int = 1) -> Progress:
    progress = Progress(rows_total=1000, rows_done=done)
    progress.lanes = {"qwen": Lane("qwen", Limits())}
    progress.lanes["qwen"].counts.sent = sent
    return progress


def test_rows_that_were_answered_before_do_not_count_as_speed() -> None:
    pace = Pace()

    for second in range(10):
        assert pace.left_s(asking_progress(80 * second, sent=0), float(second)) is None
    pace.left_s(asking_progress(800), 10.0)

    assert pace.left_s(asking_progress(810), 20.0) == pytest.approx(190.0)


def test_the_time_left_follows_a_run_that_gets_slower() -> None:
    pace = Pace()
    for second in range(60):
        pace.left_s(asking_progress(10 * second), float(second))

    for second in range(60, 180):
        left_s = pace.left_s(asking_progress(590 + second - 59), float(second))

    assert left_s == pytest.approx(290.0, rel=0.1)


def test_a_slow_run_has_a_time_left_too() -> None:
    pace = Pace()

    for row in range(10):
        left_s = pace.left_s(asking_progress(row), 300.0 * row)

    assert left_s == pytest.approx(991 * 300.0)


def silent_progress() -> Progress:
    progress = busy_progress()
    lane = progress.lanes["qwen"]
    lane.clock = iter([0.0, 12.0, 12.0]).__next__
    lane.failed(Place(1, 1), "connect: Cannot connect to host \x1b[2J")
    return progress


def test_the_live_view_says_why_no_answer_comes() -> None:
    console = Console(file=io.StringIO(), width=120, record=True)

    console.print(render(silent_progress(), Pace()))

    said = "qwen: no answer for 12 s, trying on; last connect: Cannot connect to host \\x1b[2J"
    assert said in console.export_text()


def test_a_plain_line_says_why_no_answer_comes() -> None:
    assert plain_line(silent_progress(), Pace()).endswith("last connect: Cannot connect to host \\x1b[2J")


def test_a_plain_line_says_that_a_teacher_refuses_for_its_rate() -> None:
    progress = busy_progress()
    lane = progress.lanes["qwen"]
    lane.clock = lambda: 0.0
    lane.was_limited(Place(1, 1), 30.0, exhausted=True)
    lane.clock = lambda: 12.0

    line = plain_line(progress, Pace())

    assert line.endswith("qwen: no answer for 12 s, trying on; last 429, rate limit; pausing 18 s more")


def test_a_moment_without_an_answer_is_no_trouble() -> None:
    progress = busy_progress()
    lane = progress.lanes["qwen"]
    lane.clock = lambda: 0.0
    lane.was_limited(Place(1, 1), 1.0)
    lane.clock = lambda: 0.5

    assert "no answer" not in plain_line(progress, Pace())


def test_an_empty_progress_can_be_shown() -> None:
    assert plain_line(Progress(), Pace()).startswith("planning | rows 0/? | nothing settled yet")


def test_plain_lines_come_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("synthgen.cli.live.PLAIN_EVERY_S", 0.001)
    lines = ""

    with watching(quiet=False):
        while not lines:
            lines = capsys.readouterr().err

    assert lines.startswith("planning | rows 0/?")


def test_nothing_is_shown_where_json_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("synthgen.cli.live.PLAIN_EVERY_S", 0.001)

    with watching(quiet=True) as (progress, _):
        progress.phase = "asking"

    assert capsys.readouterr().err == ""


def started(path: Path, run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "synthgen", "generate", str(path), "-o", str(run)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something is seen of a process that must not end before."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
            raise AssertionError(process.communicate())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_drains_and_the_run_goes_on_later(tmp_path: Path, number: signal.Signals) -> None:
    with LoopbackProcess("--latency", "0.2", log=tmp_path / "log.jsonl") as server:
        path = save(tmp_path / "r.yaml", recipe(server, 60))
        process = started(path, tmp_path / "run")
        wait_for(lambda: server.payments(), process)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        paid = len(server.payments())
        again = cli("generate", path, "-o", tmp_path / "run", "--json")
        payments = server.payments()

    assert process.returncode == 130, err
    assert "waiting for the answers under way" in err
    assert "Traceback" not in err
    assert 0 < paid < 60
    assert (again.code, again.json["sent"]) == (0, 60 - paid)
    assert len({payment.request for payment in payments}) == len(payments) == 60


def test_the_end_of_a_command_looks_for_no_cycles_in_what_was_imported() -> None:
    code = (
        "import atexit, gc, sys; atexit.register(lambda: print('frozen', gc.get_freeze_count() > 10_000));"
        "from synthgen.cli import main; sys.argv = ['synthgen', '--version']; main()"
    )

    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines()[-1] == "frozen True"


def test_a_signal_while_publishing_waits_for_the_whole_dataset(tmp_path: Path) -> None:
    rows, run = 100, tmp_path / "run"
    events = run / "events.jsonl"
    with LoopbackProcess(log=tmp_path / "log.jsonl") as server:
        content = recipe(server, rows, output={"rows_per_shard": 1})
        content["teachers"]["qwen"]["limits"] = {"concurrency": 256}
        path = save(tmp_path / "r.yaml", content)
        process = started(path, run)
        wait_for(lambda: events.exists() and b'"phase":"shards"' in events.read_bytes(), process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert "interrupted: " in err  # it came in time
    assert "Traceback" not in err
    assert process.returncode == 130
    assert verify(run) == []
    assert len(records(run)) == rows


def test_a_second_signal_stops_at_once_and_the_run_goes_on_later(tmp_path: Path) -> None:
    with Loopback(hold=10_000) as server:
        path = save(tmp_path / "r.yaml", recipe(server, 30))
        process = started(path, tmp_path / "run")
        wait_for(lambda: server.in_flight == 16, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "waiting for the answers under way" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert len(err.splitlines()) == 1
    assert re.search(r"planned +30\n", out)
    assert re.search(r"pending +30\n", out)
    with Loopback(reply=graded) as server:
        assert cli("generate", save(path, recipe(server, 30)), "-o", tmp_path / "run").code == 0
