"""The house keeps its shape: who may import whom, what a file must say, and how light the front door is.

broken_rules(folder)  ──  parse every file, look at every import  ──▶  one sentence for each rule that is broken

The checker reads a folder, so the last tests hand it a copy of the house with one wall knocked through.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ROOT / "src" / "agentflow"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# cli → server → mcp → llm → core → errors, clock, process_worker; integrations → core.
# "agentflow" is the face, src/agentflow/__init__.py.
GROUND = {"errors", "clock", "process_worker"}
MAY_IMPORT: Mapping[str, set[str]] = {
    "errors": set(),
    "clock": {"errors"},
    "process_worker": set(),  # on the ground, so that a worker process starts without the flow engine
    "core": GROUND,
    "integrations": GROUND | {"core"},
    "llm": GROUND | {"core"},
    "mcp": GROUND | {"core", "llm"},
    "agentflow": GROUND | {"core", "llm", "mcp"},
    "server": GROUND | {"core", "llm", "mcp", "integrations", "agentflow"},
    "cli": GROUND | {"core", "llm", "mcp", "integrations", "agentflow", "server"},
    "__main__": {"cli"},
}
# What comes from elsewhere, and the one place where it may be used; a few have two.
THIRD_PARTY: Mapping[str, str | tuple[str, ...]] = {
    "aiohttp": ("agentflow.llm.providers.http", "agentflow.server"),
    "yarl": "agentflow.llm.providers.http",  # aiohttp's own type of URL
    "yaml": "agentflow.llm.config",
    "msgspec": ("agentflow.llm", "agentflow.mcp", "agentflow.server"),
    "typing_extensions": "agentflow.llm",  # for type checkers alone, which bring it: defaults of type variables
    "click": "agentflow.cli",
    "rich": "agentflow.cli",
    "redis": "agentflow.integrations.valkey.connection",
    "dbos": "agentflow.integrations.dbos",
    "psycopg": "agentflow.integrations.dbos.leases",
    "prometheus_client": "agentflow.integrations.prometheus.exposition",
    "cryptography": "agentflow.integrations.aes_gcm",
    "opentelemetry": "agentflow.integrations.opentelemetry",  # three distributions of one namespace
    "numpy": "agentflow.mcp",
    "scipy": "agentflow.mcp",  # comes with scikit-learn
    "sklearn": "agentflow.mcp",
    "matplotlib": "agentflow.mcp",
    "torch": ("agentflow.mcp.compression", "agentflow.mcp.performance.edge.runtimes"),
    "transformers": ("agentflow.mcp.compression", "agentflow.mcp.performance.edge.runtimes"),
    "safetensors": "agentflow.mcp.compression",
    "compressed_tensors": "agentflow.mcp.compression",
    "onnx": "agentflow.mcp.compression.export",
    "onnx_ir": "agentflow.mcp.compression.export",
    "gguf": "agentflow.mcp.compression",
    "onnxruntime": ("agentflow.mcp.performance.edge.runtimes", "agentflow.mcp.compression.export"),
    "onnxruntime_genai": ("agentflow.mcp.performance.edge.runtimes", "agentflow.mcp.compression.export"),
    "llama_cpp": ("agentflow.mcp.performance.edge.runtimes", "agentflow.mcp.compression.export"),
    "tokenizers": ("agentflow.mcp.performance.edge", "agentflow.mcp.compression"),
    "jinja2": "agentflow.mcp.performance.edge",
    "llguidance": "agentflow.mcp.performance.edge",
}
COMPILED = {"llama_cpp"}  # what is compiled where it is installed, which tests do not ask of anybody
NAMELESS = {"util", "utils", "helper", "helpers", "common", "misc", "shared"}


# ---- the checker ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class File:
    """One module: its dotted name and what its text parses to."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def room(self) -> str:
        """The part of the house it stands in: "core", "llm", …; "agentflow" is the face."""
        return self.name.split(".")[1] if "." in self.name else self.name


@dataclass(frozen=True, slots=True)
class Import:
    """One imported thing: `module`, and `name` where it is `from module import name`.

    `module` ends in ".*" for `import_module(f"package.{…}")`, and is empty where nothing can be told from the text.
    """

    module: str
    name: str | None
    line: int


def files_of(house: Path) -> dict[str, File]:
    """Every module of the package folder `house`, by its dotted name."""
    found = {}
    for path in sorted(house.rglob("*.py")):
        parts = path.relative_to(house.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = File(name, is_package, _parsed(path.read_text(encoding="utf-8")))
    return found


@cache  # the tests at the end read many copies of the same files
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def imports_of(file: File) -> tuple[Import, ...]:
    """Every import in the file: type-only ones, those inside functions, and `import_module("…")`."""
    return tuple(_imports_of(file))


def _imports_of(file: File) -> Iterator[Import]:
    for node in ast.walk(file.tree):
        match node:
            case ast.Import(names=names):
                yield from (Import(alias.name, None, node.lineno) for alias in names)
            case ast.ImportFrom(names=names):
                module = _absolute(file, node)
                yield from (Import(module, alias.name, node.lineno) for alias in names)
            case ast.Call(func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module")):
                match node.args:
                    case [ast.Constant(value=str(module)), *_]:
                        yield Import(module, None, node.lineno)
                    case [ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]), *_] if start.endswith("."):
                        yield Import(f"{start}*", None, node.lineno)
                    case _:
                        yield Import("", None, node.lineno)


def _absolute(file: File, node: ast.ImportFrom) -> str:
    """`from ..x import y` as the absolute module it means."""
    if not node.level:
        return node.module or ""
    parents = file.name.split(".")
    base = parents[: len(parents) - node.level + file.is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def targets_of(imported: Import, files: Mapping[str, File]) -> list[str]:
    """The modules that are reached: a package's own name goes to its `__init__`, a submodule's to the submodule."""
    if imported.module.endswith(".*"):
        return [name for name in files if name.rpartition(".")[0] == imported.module[:-2]] or [imported.module]
    below = f"{imported.module}.{imported.name}"
    if imported.name is None or below not in files or imported.name in bound_names(files[imported.module].tree):
        return [imported.module]
    return [below]


@cache
def bound_names(tree: ast.Module) -> set[str]:
    """Names that a module's top level binds, those of `if TYPE_CHECKING` included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def broken_rules(house: Path) -> list[str]:
    """What is wrong with the package in the folder `house`: one sentence each; empty for a sound one."""
    files = files_of(house)
    reached = {
        name: [(target, found) for found in imports_of(file) for target in targets_of(found, files) if target != name]
        for name, file in files.items()
    }
    graph = {name: {target for target, _ in found if target in files} for name, found in reached.items()}
    return [
        *(
            f"{name}:{imported.line}: {wrong}"
            for name, found in reached.items()
            for target, imported in found
            if (wrong := _wrong_import(files[name], target, files))
        ),
        *_circles(graph),
        *(f"{file.name}: {wrong}" for file in files.values() for wrong in _wrong_file(file)),
    ]


def _wrong_import(file: File, target: str, files: Mapping[str, File]) -> str | None:
    top = target.split(".")[0]
    if not target:
        return None if file.is_package else "imports a name that only shows when it runs"
    if target in files:
        room = files[target].room
        allowed = room == file.room or room in MAY_IMPORT.get(file.room, set())
        return None if allowed else f"{file.room} may not import {room} ({target})"
    if top == "agentflow":
        return f"there is no module {target}"
    if top in sys.stdlib_module_names:
        return None
    named = THIRD_PARTY.get(top, ())
    places = (named,) if isinstance(named, str) else named
    allowed = any(file.name == place or file.name.startswith(f"{place}.") for place in places)
    return None if allowed else f"{top} may not be imported here, only in {' and '.join(places) or 'no place at all'}"


def _circles(graph: Mapping[str, set[str]]) -> Iterator[str]:
    """Each group of files that reach each other: the strongly connected components of more than one file."""
    reach = {name: _reached_from(name, graph) for name in graph}
    circles = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    yield from sorted(f"files import each other: {', '.join(sorted(circle))}" for circle in circles if circle)


def _reached_from(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = set(graph[start])
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= graph[name] - reached
    return reached


def _wrong_file(file: File) -> Iterator[str]:
    first = (ast.get_docstring(file.tree, clean=False) or "").split("\n")[0].strip()
    if not first or file.tree.body[0].lineno != 1:
        yield "the first line must be a docstring that says what the file is for"
    if NAMELESS & set(file.name.split(".")):
        yield "a name that says nothing; name it by what it does"
    if file.room not in MAY_IMPORT:
        yield f"the design has no room {file.room!r}; write down in MAY_IMPORT what it may import"
    if file.is_package and not all(_hands_on(statement) for statement in file.tree.body):
        yield "an __init__.py only hands names on"


def _hands_on(statement: ast.stmt) -> bool:
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Assign() | ast.AnnAssign() | ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.UnaryOp(operand=ast.Name(id="TYPE_CHECKING"))):
            return all(_hands_on(inner) for inner in statement.body)
        case ast.FunctionDef(name="__getattr__" | "__dir__"):
            return True
    return False


# ---- the house as it stands ----------------------------------------------------------------------------------


def test_the_house_breaks_no_rule() -> None:
    """Imports go one way, no two files import each other, and every file says what it is for."""
    broken = broken_rules(HOUSE)
    assert not broken, "\n".join(broken)


def test_every_name_that_a_module_offers_exists() -> None:
    """Whatever stands in an `__all__` can be imported, the lazily resolved names included."""
    for name in files_of(HOUSE):
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            assert error.name in COMPILED  # noqa: PT017 - any other module is missing by mistake
            continue
        offered = getattr(module, "__all__", [])
        assert len(offered) == len(set(offered)), f"{name}.__all__ repeats a name"
        assert [each for each in offered if not hasattr(module, each)] == [], f"{name}.__all__ names what is not there"


def test_the_face_offers_what_it_tells_type_checkers() -> None:
    """The names an editor sees in a lazy `__init__.py` are the names that resolve when the program runs."""
    for name in ("agentflow", "agentflow.core.robustness", "agentflow.llm"):
        file = files_of(HOUSE)[name]
        [seen] = [node for node in file.tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
        assert bound_names(ast.Module(seen.body, [])) == set(import_module(name).__all__)


def test_each_dependency_has_its_place() -> None:
    """Every dependency, those of the extras included, is one whose use the rule above confines, and the other way
    round."""
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    named = {re.split(r"[^\w-]", line)[0].replace("PyYAML", "yaml").replace("-", "_") for line in lines}
    imported_as = {"scikit_learn": "sklearn", "llama_cpp_python": "llama_cpp"}
    named = {imported_as.get(name, name) for name in named}
    named = {"opentelemetry" if name.startswith("opentelemetry_") else name for name in named}
    assert named == set(THIRD_PARTY) - {"yarl", "typing_extensions", "scipy"}


def test_the_changelog_names_the_version() -> None:
    """The newest release in CHANGELOG.md is the version of pyproject.toml, and the one that is installed."""
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    version = PROJECT["version"]
    assert released[:1] == [version]
    assert metadata.version(PROJECT["name"]) == version == import_module("agentflow").__version__


# ---- the front door is light ---------------------------------------------------------------------------------

HEAVY = {"aiohttp", "yaml", "numpy", "torch", "opentelemetry", "rich", "redis"}


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import agentflow", HEAVY | {"msgspec", "click", "asyncio", "agentflow.core", "agentflow.llm"}),
        ("import agentflow; agentflow.AsyncFlow", HEAVY | {"msgspec", "click", "agentflow.llm"}),
        ("import agentflow; agentflow.AgentFlow, agentflow.LLMNode", HEAVY - {"yaml"} | {"click"}),
        ("import agentflow.cli.main", HEAVY),
    ],
)
def test_an_import_loads_only_what_it_needs(program: str, absent: set[str]) -> None:
    """`import agentflow` costs next to nothing; a flow needs no HTTP client, a builder none before it calls."""
    lines = f"{program}\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True).stdout.split()
    assert absent & set(loaded) == set()


# ---- the checker itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("core/node.py", "from agentflow.llm.messages import Request", "core may not import llm"),
        ("core/node.py", "def f():\n    from agentflow.llm import Request", "core may not import llm"),
        ("core/node.py", "from ..llm import messages", "core may not import llm"),
        ("core/node.py", "importlib.import_module('agentflow.llm')", "core may not import llm"),
        ("core/node.py", "from agentflow import AsyncFlow", "core may not import agentflow"),
        ("errors.py", "from agentflow.core.state import Key", "errors may not import core"),
        ("core/state.py", "import aiohttp", "aiohttp may not be imported here"),
        ("core/state.py", "import numpy.linalg", "numpy may not be imported here, only in agentflow.mcp"),
        ("core/state.py", "import left_pad", "left_pad may not be imported here, only in no place at all"),
        ("llm/client.py", "import yaml", "yaml may not be imported here, only in agentflow.llm.config"),
        ("llm/client.py", "import_module(name)", "only shows when it runs"),
        ("core/node.py", "import_module(f'agentflow.llm.{name}')", "core may not import llm"),
        ("core/node.py", "import_module(f'agentflow.core.{name}')", "files import each other"),
        ("llm/client.py", "import agentflow.llm.nowhere", "there is no module agentflow.llm.nowhere"),
        ("core/state.py", "if TYPE_CHECKING:\n    from agentflow.core.flow import Flow", "files import each other"),
        ("core/state.py", "from agentflow.core import node", "files import each other"),
        ("core/utils.py", '"""Odds and ends."""', "a name that says nothing"),
        ("core/silent.py", "import sys", "must be a docstring"),
        ("plumbing/__init__.py", '"""Pipes."""', "the design has no room 'plumbing'"),
        ("core/__init__.py", "class Extra: ...", "only hands names on"),
    ],
)
def test_the_checker_sees_a_planted_fault(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    """A copy of the house with one fault in it is refused, and for that fault: the check above can fail."""
    house = tmp_path / "agentflow"
    shutil.copytree(HOUSE, house, ignore=shutil.ignore_patterns("__pycache__"))
    sound = broken_rules(HOUSE)
    (house / file).parent.mkdir(exist_ok=True)
    with (house / file).open("a", encoding="utf-8") as out:
        out.write(f"{text}\n")
    added = [line for line in broken_rules(house) if line not in sound]
    assert [line for line in added if complaint in line], added or "nobody complained"
