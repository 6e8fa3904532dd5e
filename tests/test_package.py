"""The package as users get it: from a wheel, from an sdist, editable, and straight from a checkout.

The checkout is copied first, so that building never touches it. Each installation gets an environment of its own, whose
dependencies are those of the running one; every command is run from an empty folder.
"""

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
CARRIED = ("synthgen", "prompts", "filters", "tests", "examples", "docs", "benchmarks")
RECIPE = "examples/quickstart.yaml"
NOT_SOURCE = shutil.ignore_patterns("__pycache__", ".*", "runs")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="environments have other folders there")


def run(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """What a command says on stdout; it must end with 0."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**clean, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is under version control."""
    copy = tmp_path_factory.mktemp("package") / "checkout"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, copy)
        elif path.name in CARRIED:
            shutil.copytree(path, copy / path.name, ignore=NOT_SOURCE)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    return built(checkout, "--sdist")


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    return built(checkout, "--wheel")


def built(source: Path, what: Literal["--sdist", "--wheel"]) -> Path:
    out = source.parent / f"dist{what}-{source.name}"
    run(sys.executable, "-m", "build", "--no-isolation", what, "--outdir", out, source, cwd=source.parent)
    (only,) = out.iterdir()
    return only


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def sources(checkout: Path, folder: str) -> set[str]:
    return {
        str(path.relative_to(checkout))
        for path in (checkout / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# ---- what is in the files


def test_the_wheel_holds_every_file_of_the_package(wheel: Path, checkout: Path) -> None:
    assert sources(checkout, "synthgen") <= names(wheel)


def test_the_wheel_says_that_it_is_typed(wheel: Path) -> None:
    assert "synthgen/py.typed" in names(wheel)


@pytest.mark.parametrize("kind", ["prompts", "filters"])
def test_the_wheel_carries_the_bundled_files(wheel: Path, checkout: Path, kind: str) -> None:
    carried = {name for name in names(wheel) if name.startswith(f"synthgen/_data/{kind}/")}

    assert carried == {f"synthgen/_data/{name}" for name in sources(checkout, kind)}


def test_the_wheel_holds_nothing_else(wheel: Path, checkout: Path) -> None:
    others = names(wheel) - sources(checkout, "synthgen")

    assert {name.partition(".dist-info/")[0].partition("/_data/")[0] for name in others} == {
        "synthgen",
        "synthgen-0.1.0",
    }


def test_the_wheel_holds_the_licence_and_names_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        (licence,) = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        assert Parser().parsestr(archive.read(metadata).decode())["License-Expression"] == "Apache-2.0"


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()

    again = built(unpacked, "--wheel")

    assert names(again) == names(wheel)


def test_the_sdist_holds_the_tests_and_the_makefile(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}

    assert {"Makefile", "CHANGELOG.md", "LICENSE", "tests/test_package.py", RECIPE} <= held


# ---- what runs from an installation

How = Literal["wheel", "editable", "checkout"]


@dataclass(frozen=True, slots=True)
class Installed:
    """A way to run synthgen; `package` is where its code must come from."""

    python: Path
    env: dict[str, str]
    package: Path
    empty: Path

    def python_says(self, code: str) -> str:
        return run(self.python, "-c", code, cwd=self.empty, env=self.env).strip()

    def synthgen(self, *words: str) -> str:
        return run(self.python, "-m", "synthgen", *words, cwd=self.empty, env=self.env)


@pytest.fixture(scope="module", params=["wheel", "editable", "checkout"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, checkout: Path, wheel: Path
) -> Installed:
    how: How = request.param
    folder = tmp_path_factory.mktemp(how)
    empty = folder / "empty"
    empty.mkdir()
    python, libraries = environment(folder / "venv")
    if how == "checkout":
        return Installed(python, {"PYTHONPATH": str(checkout)}, checkout / "synthgen", empty)
    what = [str(wheel)] if how == "wheel" else ["--editable", str(checkout)]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install"]
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", *what, cwd=empty)
    return Installed(python, {}, (libraries if how == "wheel" else checkout) / "synthgen", empty)


def environment(folder: Path) -> tuple[Path, Path]:
    """A new environment that sees the libraries of the running one, but not its synthgen; its python and its folder
    of libraries."""
    venv.create(folder, with_pip=False, symlinks=True)
    libraries = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    # Folders named in a .pth are searched last, and .pth files inside them are not read.
    theirs = [
        path for path in (*site.getsitepackages(), sysconfig.get_path("platlib")) if Path(path).is_dir()
    ]
    (libraries / "libraries.pth").write_text("\n".join(dict.fromkeys(theirs)) + "\n", encoding="utf-8")
    return folder / "bin" / "python", libraries


def test_the_code_is_the_installations_own(installed: Installed) -> None:
    assert installed.python_says("import synthgen; print(synthgen.__file__)") == str(
        installed.package / "__init__.py"
    )


@pytest.mark.parametrize("kind", ["prompts", "filters"])
def test_bundled_files_are_found(installed: Installed, checkout: Path, kind: str) -> None:
    found = installed.python_says(f"from synthgen.assets import *; print(*asset_names({kind!r}))").split()

    assert found == sorted(path.stem for path in (checkout / kind).iterdir())


def test_every_bundled_prompt_is_listed(installed: Installed, checkout: Path) -> None:
    listed = json.loads(installed.synthgen("list", "prompts", "--json"))["prompts"]

    assert {f"{prompt['name']}.yaml" for prompt in listed} == {
        p.name for p in (checkout / "prompts").iterdir()
    }


def test_the_policy_rules_are_found(installed: Installed) -> None:
    listed = json.loads(installed.synthgen("list", "teachers", "--json"))

    assert "self-hosted" in {route["name"] for route in listed["routes"]}


def test_the_price_table_is_found(installed: Installed) -> None:
    code = "from synthgen.asking.prices import price_table; print(bool(price_table()))"

    assert installed.python_says(code) == "True"


def test_the_arrow_schemas_are_found(installed: Installed) -> None:
    code = "from synthgen.schema import *; print(len(arrow_schema_b64('record', RecordShape())) > 100)"

    assert installed.python_says(code) == "True"


def test_a_dataset_is_filtered_and_published(installed: Installed, tmp_path: Path) -> None:
    said = [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Red is a colour."},
    ]
    rows = [{"messages": said}, {"messages": said}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    words = (
        "filter",
        str(tmp_path / "rows.jsonl"),
        "--chain",
        "sft_default",
        "-o",
        str(tmp_path / "out"),
        "--json",
    )
    report = json.loads(installed.synthgen(*words))

    assert (report["counts"]["accepted"], report["counts"]["rejected"]) == (1, 1)


def test_a_recipe_is_planned(installed: Installed, checkout: Path) -> None:
    plan = json.loads(installed.synthgen("plan", str(checkout / RECIPE), "--json"))

    assert plan["rows"] == 56


def test_help_is_printed(installed: Installed) -> None:
    assert "generate" in installed.synthgen("--help")


@pytest.mark.parametrize("installed", ["wheel", "editable"], indirect=True)
def test_the_console_script_runs(installed: Installed) -> None:
    assert "generate" in run(installed.python.parent / "synthgen", "--help", cwd=installed.empty)


# ---- what is required


def closure(requirement: Requirement, found: dict[str, set[str]]) -> None:
    """Add the distribution and everything it needs, as installed here, to `found` with the extras asked of it."""
    name = requirement.name.lower()
    new = (set(requirement.extras) | {""}) - found.setdefault(name, set())
    found[name] |= new
    try:
        needs = distribution(name).requires or []
    except PackageNotFoundError:
        return
    for need in map(Requirement, needs):
        if new and (need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in new)):
            closure(need, found)


def test_running_the_tests_needs_one_version_of_torch() -> None:
    """Any other is, on most indexes, a CUDA build of several GB."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = map(Requirement, project["optional-dependencies"]["dev"])

    (torch,) = [need for need in needs if need.name == "torch"]

    assert [one.operator for one in torch.specifier] == ["=="]


def test_what_is_no_extra_of_training_needs_no_torch() -> None:
    found: dict[str, set[str]] = {}

    closure(Requirement("synthgen[local,azure,bedrock,vertex,fast,math]"), found)

    assert "openvino-genai" in found
    assert not {name for name in found if name in ("torch", "torchvision") or name.startswith("nvidia-")}
