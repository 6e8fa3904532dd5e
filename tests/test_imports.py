"""What importing costs, and what is public: laziness, `__all__` everywhere, the snapshot of the top level."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import synthgen
from tests.loopback import Loopback
from tests.runs import recipe, save

ROOT = Path(synthgen.__file__).parent
VENDORS = ("openai", "anthropic", "aiohttp", "httpx", "openvino", "openvino_genai", "torch")
HEAVY = (*VENDORS, "polars", "datasketch", "numpy", "pyarrow", "pydantic", "jinja2", "rich", "asyncio")
REFINING = (
    "polars",
    "datasketch",
    "numpy",
    "rich",
    "synthgen.refine.running",
    "synthgen.asking.doctor.probes",
)
# Loads a model process's libraries when imported; only that process imports it.
WORKER = "synthgen.asking.local_worker"
MODULES = [
    module.name
    for module in pkgutil.walk_packages(synthgen.__path__, "synthgen.")
    if module.name not in (WORKER, "synthgen.__main__")
]


def loaded_by(code: str, libraries: tuple[str, ...]) -> set[str]:
    """Which of `libraries` a fresh interpreter has loaded after `code`."""
    ask = f"import sys; print('\\n', *[name for name in {libraries!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ask}"], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    return set(done.stdout.splitlines()[-1].split())


# ---- laziness


@pytest.mark.parametrize(
    "code",
    [
        "import synthgen",
        "import synthgen; dir(synthgen)",
        "import synthgen.errors, synthgen.types, synthgen.assets",
    ],
)
def test_the_package_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code, HEAVY) == set()


@pytest.mark.parametrize(
    "code",
    [
        "import synthgen; synthgen.generate",
        "import synthgen; synthgen.recipe_schema()",
        "import synthgen; synthgen.plan('examples/quickstart.yaml')",
    ],
)
def test_what_sends_nothing_loads_no_vendors_library(code: str) -> None:
    assert loaded_by(code, VENDORS) == set()


def test_a_run_that_only_asks_loads_nothing_that_refines_or_shows(tmp_path: Path) -> None:
    """Nor any SDK."""
    with Loopback() as server:
        path = save(tmp_path / "r.yaml", recipe(server, 2, refine={"chain": "none"}))
        command = ["generate", str(path), "-o", str(tmp_path / "run"), "--ask-only", "--json"]
        code = f"import sys; sys.argv[1:] = {command!r}\nfrom synthgen.cli import main; main()"

        loaded = loaded_by(code, (*VENDORS, *REFINING, "httptools"))

    assert loaded == {"httptools"}


@pytest.mark.parametrize(
    "package", ["asking", "asking.batch", "asking.doctor", "dataset", "pipeline", "refine"]
)
def test_a_package_that_loads_lazily_gives_what_it_lists(package: str) -> None:
    name = f"synthgen.{package}"
    tree = ast.parse(source(name).read_bytes())
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{name}.")
        for alias in node.names
    }

    assert set(typed) == set(listed_names(name))
    for listed, home in typed.items():
        assert getattr(importlib.import_module(name), listed) is getattr(
            importlib.import_module(str(home)), listed
        )
        assert f"{name}.{listed}" not in MODULES  # the module would hide it


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_by("import numpy", HEAVY) == {"numpy"}


# ---- public names


def test_the_public_names_of_the_package() -> None:
    assert synthgen.__all__ == [
        "DedupOptions",
        "FilterOptions",
        "Options",
        "Report",
        "ReportOptions",
        "SynthgenError",
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
        "recipe_schema",
        "report",
        "show",
    ]


@pytest.mark.parametrize("name", synthgen.__all__)
def test_a_public_name_is_the_apis(name: str) -> None:
    api = importlib.import_module("synthgen.api")

    assert getattr(synthgen, name) is getattr(api, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(synthgen, "nonsense")  # noqa: B009  # mypy knows that it does not exist


def test_type_checkers_see_the_names_the_package_resolves() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_bytes())
    seen = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "synthgen.api"
        for alias in node.names
    }

    assert seen == set(synthgen.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_listed_name_exists(name: str) -> None:
    module = importlib.import_module(name)

    missing = [listed for listed in listed_names(name) if not hasattr(module, listed)]

    assert missing == []


@pytest.mark.parametrize("name", [*MODULES, WORKER])
def test_what_a_module_takes_from_another_is_listed_there(name: str) -> None:
    unlisted = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(source(name).read_bytes()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "synthgen"
        for alias in node.names
        if f"{node.module}.{alias.name}" not in (*MODULES, WORKER)
        and alias.name not in listed_names(node.module or "")
    }

    assert unlisted == set()


def listed_names(name: str) -> list[str]:
    """`__all__` as it stands in the source; an empty package file may lack it."""
    for node in ast.parse(source(name).read_bytes()).body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]:
            return [str(value) for value in ast.literal_eval(node.value)]
    assert not public_definitions(name), f"{name} defines {public_definitions(name)} and has no __all__"
    return []


def public_definitions(name: str) -> list[str]:
    return [
        node.name
        for node in ast.parse(source(name).read_bytes()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]


def source(name: str) -> Path:
    path = ROOT.parent.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
