"""The verbs as functions: what `import synthgen` offers, and what the command line calls.

In: paths, mappings, plain values. Out: typed results. Each function works in a script and inside a running event loop
(a notebook): then the run gets a thread and a loop of its own. Errors that keep a run from starting are raised as
`SynthgenError`; what stopped a started run is in `Report.problem`.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from synthgen.errors import SynthgenError, UsageError
from synthgen.lazy import lazily
from synthgen.recipe.load import LoadedRecipe, load_recipe
from synthgen.recipe.schema import recipe_schema
from synthgen.types import JSONValue

if TYPE_CHECKING:  # each verb loads what it needs
    from synthgen.asking.batch import Pace
    from synthgen.pipeline import (
        Cancelled,
        DatasetReport,
        DedupOptions,
        DedupReport,
        Export,
        FilterOptions,
        OnDeny,
        Options,
        Plan,
        Question,
        Recheck,
        Report,
        ReportOptions,
        RowStory,
        RunSummary,
        UnusableReplies,
    )
    from synthgen.pipeline.calibration import Calibration
    from synthgen.pipeline.doctor import DoctorOptions, Examination

__all__ = [
    "Cancelled",
    "DatasetReport",
    "DedupOptions",
    "DedupReport",
    "FilterOptions",
    "LoadedRecipe",
    "Options",
    "Plan",
    "Question",
    "Recheck",
    "Report",
    "ReportOptions",
    "RowStory",
    "RunSummary",
    "SynthgenError",
    "UnusableReplies",
    "cancel",
    "dedup",
    "doctor",
    "filter",
    "generate",
    "judge_calibrate",
    "load_recipe",
    "plan",
    "policy_attest",
    "policy_check",
    "policy_export",
    "policy_student",
    "preview",
    "recipe_schema",
    "report",
    "show",
    "unusable_replies",
]

T = TypeVar("T")
RecipeLike = str | Path | Mapping[str, JSONValue] | LoadedRecipe


def generate(
    recipe: RecipeLike,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    options: "Options | None" = None,
) -> "Report":
    """Ask, refine and publish; `out` defaults to `runs/<name>`. The same call resumes.

    `overrides` are `a.b=c` texts as of `--set`.

    Raises:
        SynthgenError: the run could not start.
    """
    from synthgen.pipeline.generate import Options, generate

    loaded = _loaded(recipe, overrides)
    return _run(generate(loaded, _folder(loaded, out), options or Options()))


def plan(
    recipe: RecipeLike,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    max_cost_usd: float | None = None,
) -> "Plan":
    """What `generate` would do and cost; sends nothing, writes nothing, and says what policy decides.

    `out` is the run folder, as in `generate`: what the doctor left there counts.

    Raises:
        SynthgenError: the recipe, its files or its source are wrong, or a server was proved to lack what is asked.
    """
    from synthgen.journal import require_folder
    from synthgen.pipeline import (
        RunFolder,
        make_plan,
        open_gates,
        read_record,
        require_abilities,
        require_schemas_kept,
    )
    from synthgen.pipeline.resolve import resolve

    loaded = _loaded(recipe, overrides)
    folder = RunFolder(_folder(loaded, out))
    require_folder(folder.path)
    cap_usd = loaded.recipe.budget_usd if max_cost_usd is None else max_cost_usd
    resolved = resolve(loaded, cap_usd=cap_usd)
    today = date.today()  # noqa: DTZ011  # the user's day
    require_abilities(resolved, read_record(folder), today)
    require_schemas_kept(resolved, folder, today)
    return make_plan(resolved, open_gates(resolved, today), cap_usd)


def doctor(
    recipe: RecipeLike,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    options: "DoctorOptions | None" = None,
) -> "Examination":
    """Prove what the endpoints of a recipe can do, by asking them; stores the result in the run folder `out`.

    For a bare URL, hand over the recipe that `synthgen.pipeline.doctor.endpoint_recipe` makes of it.

    Raises:
        SynthgenError: it could not begin; what was found wrong is in `Examination.problem`.
    """
    from synthgen.pipeline.doctor import DoctorOptions, diagnose

    loaded = _loaded(recipe, overrides)
    return _run(diagnose(loaded, _folder(loaded, out), options or DoctorOptions()))


def preview(recipe: RecipeLike, questions: int, *, overrides: Sequence[str] = ()) -> "list[Question]":
    """The first `questions` prompts that `generate` would send, rendered; sends nothing.

    Raises:
        SynthgenError: the recipe, its files or its source are wrong.
    """
    from synthgen.pipeline import first_questions
    from synthgen.pipeline.resolve import resolve

    return first_questions(resolve(_loaded(recipe, overrides)), questions)


def filter(  # the verb's name
    inputs: str | Path | Sequence[str | Path], out: str | Path, *, options: "FilterOptions | None" = None
) -> "Report":
    """Refine again without any teacher: a run folder (from its journal), or Parquet/JSONL files of any known format.

    Raises:
        SynthgenError: the inputs cannot be read, or the output cannot be written.
    """
    from synthgen.pipeline import FilterOptions, filter_foreign, recut

    paths = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    options = options or FilterOptions()
    if len(paths) == 1 and (paths[0] / "journal").is_dir():
        return recut(paths[0], Path(out), options)
    return filter_foreign(paths, Path(out), options)


def dedup(
    inputs: str | Path | Sequence[str | Path], out: str | Path, *, options: "DedupOptions | None" = None
) -> "DedupReport":
    """Remove near-duplicate rows of Parquet and JSONL files with any columns; the same call resumes.

    Raises:
        SynthgenError: the inputs cannot be read, an option does not fit them, or the output cannot be written.
    """
    from synthgen.pipeline.dedup import DedupOptions, dedup

    paths = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    return dedup(paths, Path(out), options or DedupOptions())


def report(
    inputs: str | Path | Sequence[str | Path], *, options: "ReportOptions | None" = None
) -> "DatasetReport":
    """What a run or anybody's dataset covers, how varied it is, who loses rows where, what it says of gender.

    Writes nothing: `DatasetReport.write` and `write_seeds` do.

    Raises:
        SynthgenError: an input cannot be read, or an option does not fit it.
    """
    from synthgen.pipeline.reporting import ReportOptions, report_on

    paths = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    return report_on(paths, options or ReportOptions())


def judge_calibrate(run: str | Path, labels: str | Path, *, precision: float = 0.9) -> "Calibration":
    """Compare the stored judgements of a run with people's labels; asks nobody, stores `calibration.json` in the run.

    `labels` is JSONL: `id` of a record (or `instruction` and `response`), and `label`: true or false, or a score on the
    judges' scale. `precision` is the share of kept records that must be good; it picks the threshold.

    Raises:
        SynthgenError: not a run with a judge, or labels that cannot be read or fit no judged record.
    """
    from synthgen.pipeline.calibrate import calibrate

    return calibrate(Path(run), Path(labels), precision=precision)


def policy_check(
    target: str | Path | Mapping[str, JSONValue] | LoadedRecipe,
    *,
    use: Sequence[str] = (),
    overrides: Sequence[str] = (),
    on_deny: "OnDeny" = "fail",
    today: date | None = None,
) -> "Recheck":
    """What the policy says of a recipe, or of every row of a run or dataset folder; sends and writes nothing.

    `use` takes the place of the declared uses. `on_deny` (rows only): `fail`, `drop` or `split`.

    Raises:
        SynthgenError: the recipe, its files or the folder are wrong.
    """
    from synthgen.pipeline import check_recipe, check_rows

    day = today or date.today()  # noqa: DTZ011  # the user's calendar day, as in their lock file
    if isinstance(target, str | Path) and Path(target).is_dir():
        if overrides:
            raise UsageError("--set: is for a recipe; a run keeps the one it has")
        return check_rows(Path(target), use, on_deny, day)
    if on_deny != "fail":
        raise UsageError(f"on-deny {on_deny}: is for rows that exist; a recipe has none yet")
    loaded = _loaded(target, overrides)
    if use:
        recipe = loaded.recipe.model_copy(update={"use": list(use)})
        loaded = replace(loaded, recipe=recipe)
    return check_recipe(loaded, day)


def policy_attest(
    recipe: str | Path,
    *,
    use: str,
    because: str,
    who: str,
    expires: date,
    rules: Sequence[str] = (),
    subject: str | None = None,
    contract: str | None = None,
    document: Path | None = None,
) -> tuple[Path, str]:
    """Record a person's decision in `policy.lock.toml` beside the recipe; returns the file and the added text.

    With `contract` and its `document` it is a waiver, which lifts deny too. Without `rules` it answers for all that
    stop the recipe for `use` today.

    Raises:
        SynthgenError: the recipe, the lock file or the entry is wrong; nothing was written.
    """
    from synthgen.pipeline import Attestation, attest

    if (contract is None) != (document is None):
        raise UsageError("attest: a waiver needs both the reference of the contract and its document")
    try:
        digest = hashlib.sha256(document.read_bytes()).hexdigest() if document else None
    except OSError as error:
        raise UsageError(f"{document}: cannot be read: {error.strerror}") from error
    decided = Attestation(use, because, who, expires, tuple(rules), subject, contract, digest)
    return attest(load_recipe(recipe), decided, date.today())  # noqa: DTZ011  # the user's calendar day


def policy_export(
    folder: str | Path,
    what: "Export",
    *,
    use: Sequence[str] = (),
    student: str | None = None,
    today: date | None = None,
) -> bytes:
    """A published dataset's card, `croissant`, `spdx`, `ai-act` block, `obligations` or `policy`, decided anew.

    `use` takes the place of the declared uses; `student` is a model trained on the rows, for `spdx`; without `today`
    the day of the publication counts.

    Raises:
        SynthgenError: not a published dataset, the use is not permitted, or the student's name breaks a duty.
    """
    from synthgen.pipeline import export

    return export(Path(folder), what, use=use, student=student, today=today)


def policy_student(
    folder: str | Path,
    name: str,
    *,
    use: Sequence[str] = (),
    distributed: bool = True,
    today: date | None = None,
) -> tuple[str, ...]:
    """Check the name of a student trained on a published dataset, before it is saved; returns what is then owed.

    `distributed`: its weights leave the organisation.

    Raises:
        PolicyError: the rows may not be used so, or the name breaks a duty such as `NAME-PREFIX:Llama`.
        SynthgenError: not a published dataset.
    """
    from synthgen.pipeline import student_allowed

    return student_allowed(Path(folder), name, use=use, distributed=distributed, today=today)


def cancel(
    run: str | Path, *, pace: "Pace | None" = None, say: Callable[[str], None] = lambda _: None
) -> "Cancelled":
    """Stop the batches of a run at their vendors; what was answered until then is paid and journaled.

    Waits until each batch is over, which vendors take minutes for; `say` is told which one it is at.

    Raises:
        SynthgenError: not a run, or it cannot be worked on.
    """
    from synthgen.asking.batch import Pace
    from synthgen.pipeline import cancel_run

    return _run(cancel_run(Path(run), pace or Pace(), say))


def show(run: str | Path, *, row: str | None = None, samples: int = 3) -> "RunSummary | RowStory":
    """Counts, reasons, spend and samples of a run; or, with `row`, the whole story of one record.

    `row` is a record id or the beginning of one.

    Raises:
        SynthgenError: not a run, or no such row.
    """
    from synthgen.pipeline import row_story, summarise

    return summarise(Path(run), samples) if row is None else row_story(Path(run), row)


def unusable_replies(run: str | Path) -> "UnusableReplies":
    """Replies of a run that were paid and could not be used, with their bodies.

    Raises:
        SynthgenError: not a run, or its journal cannot be read.
    """
    from synthgen.pipeline import find_unusable

    return find_unusable(Path(run))


def _folder(loaded: LoadedRecipe, out: str | Path | None) -> Path:
    """The run folder of a recipe."""
    return Path(out) if out is not None else Path("runs") / loaded.recipe.name


def _loaded(recipe: RecipeLike, overrides: Sequence[str]) -> LoadedRecipe:
    if isinstance(recipe, LoadedRecipe):
        return recipe
    return load_recipe(recipe, overrides)


def _run(work: Coroutine[None, None, T]) -> T:
    """Run to the end, also when the caller is inside an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _loop_run(work)
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T] | None]] = Future()

    async def announced() -> T:
        running.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(1, thread_name_prefix="synthgen") as thread:
        result = thread.submit(_loop_run, announced())
        try:
            return result.result()
        except KeyboardInterrupt:  # reaches only this thread: pass it on, else the run would go on unseen
            loop, task = running.result()
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)
            raise


def _loop_run(work: Coroutine[None, None, T]) -> T:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed (extra `fast`)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


__getattr__ = lazily(
    "synthgen.pipeline",
    {
        "cancel": ("Cancelled",),
        "dedup": ("DedupOptions",),
        "dedup_output": ("DedupReport",),
        "generate": ("Options",),
        "plan": ("Plan",),
        "preview": ("Question",),
        "recheck": ("Recheck",),
        "filter_options": ("FilterOptions",),
        "report": ("Report",),
        "reporting": ("DatasetReport", "ReportOptions"),
        "show": ("RowStory", "RunSummary"),
        "show_unusable": ("UnusableReplies",),
    },
)
