"""A signal while a resumed run walks through rows that earlier sessions answered: it ends soon, and nothing gets less.

The walk is met at a given row by a progress that sends the signal when that many are admitted.
"""

import json
import os
import signal
from pathlib import Path

import synthgen
from synthgen.api import Options
from synthgen.pipeline.progress import Progress
from synthgen.pipeline.report import Report
from synthgen.pipeline.runfolder import RunFolder
from tests.loopback import Loopback
from tests.runs import Recipe, cli, published_bytes, recipe

# With four places 80 rows are on their way.
ROWS, WAVE = 160, 8


class Interrupts(Progress):
    """Sends SIGINT as soon as `at` rows are admitted."""

    at = WAVE

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "rows_admitted" and value == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def content(server: Loopback) -> Recipe:
    made = recipe(server, ROWS, wave=WAVE)
    made["teachers"]["qwen"]["limits"] = {"concurrency": 4}
    return made


def run(server: Loopback, out: Path, **options: object) -> Report:
    return synthgen.generate(content(server), out, options=Options(**options))  # type: ignore[arg-type]  # by name


def interrupted(server: Loopback, out: Path) -> tuple[Report, Progress]:
    progress = Interrupts()
    return run(server, out, handle_signals=True, progress=progress), progress


def test_the_rest_of_the_walk_is_pending_and_what_was_published_stays(tmp_path: Path) -> None:
    with Loopback() as server:
        run(server, tmp_path / "run")
        before = published_bytes(tmp_path / "run")

        report, progress = interrupted(server, tmp_path / "run")

        asked = len(server.requests)
    assert (report.exit_code, asked) == (130, ROWS)
    assert progress.rows_admitted < ROWS
    assert report.counts["accepted"] == progress.rows_admitted
    assert (report.counts["planned"], report.counts["pending"]) == (ROWS, ROWS - progress.rows_admitted)
    assert "what this session did not settle counts as pending" in str(report.problem)
    assert published_bytes(tmp_path / "run") == before
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["counts"]["accepted"] == ROWS


def test_a_walk_that_was_cut_short_publishes_nothing(tmp_path: Path) -> None:
    with Loopback() as server:
        run(server, tmp_path / "run", ask_only=True)

        interrupted(server, tmp_path / "run")

    assert not (tmp_path / "run" / "manifest.json").exists()
    assert not list((tmp_path / "run").glob("data/*"))


def test_filter_still_sees_every_row_and_so_does_the_next_session(tmp_path: Path) -> None:
    with Loopback() as server:
        run(server, tmp_path / "run")
        before = published_bytes(tmp_path / "run")
        interrupted(server, tmp_path / "run")

        cut = cli("filter", tmp_path / "run", "-o", tmp_path / "cut", "--json")
        again = run(server, tmp_path / "run")

        asked = len(server.requests)
    assert cut.json["counts"]["accepted"] == ROWS
    assert (again.exit_code, again.counts["accepted"], asked) == (0, ROWS, ROWS)
    assert published_bytes(tmp_path / "run") == before


def test_a_signal_behind_what_was_known_publishes_as_ever(tmp_path: Path) -> None:
    with Loopback() as server:
        report, progress = interrupted(server, tmp_path / "run")

    assert (report.exit_code, report.counts["planned"]) == (130, ROWS)
    assert report.counts["pending"] >= ROWS - progress.rows_admitted
    assert (tmp_path / "run" / "manifest.json").exists()


def order(folder: RunFolder) -> list[int]:
    return [int(key, 16) for key in folder.read_order()]


def keys(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(16) for number in numbers)


def run_folder(path: Path, *numbers: int) -> RunFolder:
    folder = RunFolder(path)
    folder.journal.mkdir(parents=True)
    folder.order.write_bytes(keys(*numbers))
    return folder


def test_a_walk_cut_short_has_the_longer_order_back_also_after_a_kill(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, 1, 2, 3, 4)
    folder.begin_order()
    folder.note_order(keys(1))  # and killed

    folder.begin_order()
    folder.note_order(keys(1, 2))
    folder.end_order(whole=False)

    assert order(folder) == [1, 2, 3, 4]


def test_an_order_that_goes_another_way_is_not_put_back(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, 1, 2, 3, 4)

    folder.begin_order()
    folder.note_order(keys(9, 2))
    folder.end_order(whole=False)

    assert order(folder) == [9, 2]


def test_the_order_of_a_session_that_came_to_its_end_is_the_new_one(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, 1, 2, 3, 4)

    folder.begin_order()
    folder.note_order(keys(1, 2))
    folder.end_order(whole=True)

    assert order(folder) == [1, 2]
    assert [path.name for path in folder.journal.iterdir()] == ["rows.bin"]
