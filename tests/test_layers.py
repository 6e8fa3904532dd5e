"""Imports point down. The rows below are the layers of `docs/architecture.md`, lowest first.

Read are the sources, not the running modules: an import counts wherever it stands, in a function or under
`if TYPE_CHECKING` as well.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "synthgen"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("dataclasses",),
    ("errors", "lazy", "types", "shape", "schema", "spool", "keymap"),
    ("assets", "plugins"),
    ("recipe",),
    ("sources", "templates", "journal", "refine", "policy", "dataset"),
    ("insight",),
    ("asking",),
    ("pipeline",),
    ("train",),
    ("api", "cli", "__init__", "__main__"),
)
# Who may use a neighbour in its own layer. Whatever is not here may not: the leaves know nothing of each other.
NEIGHBOURS = {
    ("types", "errors"),
    ("schema", "shape"),
    ("schema", "types"),
    ("spool", "errors"),
    ("keymap", "spool"),
    ("plugins", "assets"),
    ("cli", "api"),
    ("__init__", "api"),
    ("__main__", "cli"),
}
# Rooms inside `asking`. Each knows the words (`outcome`) and itself; only the front knows the rooms.
ASKING_ROOMS: dict[str, tuple[str, ...]] = {
    "words": ("outcome",),
    "wire": ("wire",),
    "transport": ("transport",),
    "lanes": ("lanes", "retry"),
    "money": ("prices", "budget"),
    "embedded": ("local", "local_lines", "local_model", "local_worker"),
    "front": (
        "__init__",
        "ask",
        "attempt",
        "batch",
        "clouds",
        "compression",
        "connect",
        "doctor",
        "lessons",
        "providers",
        "samples",
        "server_queue",
        "spec",
        "structured",
        "refusals",
        "unanswered",
    ),
}

SDK_USERS = {f"synthgen.asking.{name}" for name in ("transport.sdk", "transport.clouds", "batch.sdk")}

LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
ASKING_ROOM_OF = {part: room for room, parts in ASKING_ROOMS.items() for part in parts}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """Everything the file imports, at any depth; `from package import module` names the module and the attribute."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def deepest(name: str) -> str:
    """`package.module.attribute` without its attribute."""
    return name if name in SOURCES else name.rpartition(".")[0]


def room(module: str) -> str:
    """First part below the package: `synthgen.refine.filters.text` -> `refine`."""
    return (*module.split(".")[1:2], "__init__")[0]


def asking_room(module: str) -> str:
    return ASKING_ROOM_OF[(*module.split(".")[2:3], "__init__")[0]]


ALL_IMPORTS = {name: imported(path) for name, path in SOURCES.items()}
LIBRARIES = {module: {name.split(".")[0] for name in names} for module, names in ALL_IMPORTS.items()}
IMPORTS = {
    module: {deepest(name) for name in names if name.split(".")[0] == ROOT.name}
    for module, names in ALL_IMPORTS.items()
}
EDGES = [(source, target) for source, targets in IMPORTS.items() for target in sorted(targets)]


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_has_a_layer(module: str) -> None:
    assert room(module) in LAYER_OF


def test_every_room_exists() -> None:
    assert {room(module) for module in SOURCES} == set(LAYER_OF)


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_from_below(module: str) -> None:
    here = room(module)

    above = {
        target
        for target in IMPORTS[module]
        if room(target) != here
        and LAYER_OF[room(target)] >= LAYER_OF[here]
        and (here, room(target)) not in NEIGHBOURS
    }

    assert above == set()


def test_no_module_takes_part_in_a_cycle() -> None:
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names the cycle


def test_rooms_of_asking_do_not_know_one_another() -> None:
    strangers = {
        (source, target)
        for source, target in EDGES
        if room(source) == room(target) == "asking"
        and asking_room(source) != "front"
        and asking_room(target) not in (asking_room(source), "words")
    }

    assert strangers == set()


def test_every_room_of_asking_exists() -> None:
    parts = {(*module.split(".")[2:3], "__init__")[0] for module in SOURCES if room(module) == "asking"}

    assert parts == set(ASKING_ROOM_OF)


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("aiohttp", {"synthgen.asking.transport.aiohttp_transport"}),
        ("httptools", {"synthgen.asking.transport.direct"}),
        ("openai", SDK_USERS | {"synthgen.asking.batch.openai_batches"}),
        ("anthropic", SDK_USERS | {"synthgen.asking.batch.anthropic_batches"}),
        ("openvino_genai", {"synthgen.asking.local_worker", "synthgen.train.export.openvino_worker"}),
        ("datasketch", {"synthgen.refine.minhash_rule"}),
        ("boto3", {"synthgen.asking.transport.clouds"}),
        ("google", {"synthgen.asking.transport.clouds"}),
        ("azure", {"synthgen.asking.transport.clouds"}),
    ],
)
def test_a_heavy_library_is_imported_only_where_it_is_needed(library: str, homes: set[str]) -> None:
    users = {module for module, libraries in LIBRARIES.items() if library in libraries}

    assert users == homes


@pytest.mark.parametrize("library", ["peft", "torch", "transformers", "trl"])
def test_a_library_of_training_is_imported_in_train_alone(library: str) -> None:
    users = {module for module, libraries in LIBRARIES.items() if library in libraries}

    assert {room(module) for module in users} <= {"train"}
