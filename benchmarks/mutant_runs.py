"""A mutant before its judges: pytest in a forked process, with one module's text replaced as it is imported.

    with Court.opened(root) as court:              a copy of the tree, which nobody edits
        tests = court.baseline(["tests/core/robustness/test_buckets.py"])
        court.judge(tests, "agentflow.core.robustness.buckets", mutant)      "killed", "survived", …

This process has pytest and hypothesis imported and nothing of agentflow, so a fork begins where an import would: 0.1 s
instead of 1. The baseline notes which test executes which line; a mutant meets only the tests that execute a statement
that it changes, the quickest first, until one fails. Examples are few and drawn alike each time (`_calm`).

A mutant that hangs (virtual clocks jump, and a wrong loop jumps for ever) ends by its limit of CPU or of patience, one
that fills the memory by its limit of that: both are found, "timed out".
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import _hypothesis_pytestplugin
import pytest
import pytest_asyncio.plugin
import pytest_timeout
from coverage import Coverage
from hypothesis import HealthCheck, Phase, settings

from mutants import Mutant

CPU: Final = 20
PATIENCE: Final = 60.0
_MEMORY: Final = 4 << 30
_ARGUMENTS: Final = ("-x", "-q", "--tb=short", "--color=no", "-p", "no:cacheprovider", "-p", "no:faulthandler")
_PLUGINS: Final = (_hypothesis_pytestplugin, pytest_asyncio.plugin, pytest_timeout)  # imported before the first fork
_ALIVE: Final = {0: "survived", 5: "survived"}  # pytest's status; 5: no test was found


@dataclass(frozen=True, slots=True)
class Test:
    """`lines` by module: what it executes of the text of each; `seconds`: what it takes."""

    name: str
    seconds: float
    lines: dict[str, frozenset[int]]


@dataclass(slots=True)
class Running:
    """A process that judges a mutant, and until when."""

    process: int
    until: float

    def verdict(self) -> str | None:
        """What became of it, or None while it runs."""
        process, status = os.waitpid(self.process, os.WNOHANG)
        if process:
            code = os.waitstatus_to_exitcode(status)
            return _ALIVE.get(code, "timed out" if code < 0 else "killed")
        if time.monotonic() > self.until:
            os.killpg(self.process, signal.SIGKILL)
        return None


class Court:
    """A copy of the tree, and the processes that run in it."""

    def __init__(self, folder: Path, root: Path) -> None:
        for name in ("src/agentflow", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(root / name, folder / name, ignore=ignored)
        shutil.copy(root / "pyproject.toml", folder)
        self.folder = folder
        gc.freeze()

    @classmethod
    @contextmanager
    def opened(cls, root: Path) -> Iterator[Court]:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            yield cls(Path(folder).resolve(), root)

    def file(self, module: str) -> Path:
        return self.folder / "src" / f"{module.replace('.', '/')}.py"

    def baseline(self, package: str, file: str) -> list[Test]:
        """The tests of a file with what they execute of a package; they must all pass, with the same few examples."""
        outcome = self.folder / "baseline.json"
        recorder = _Recorder(self.folder, package)
        running = self._started([file], [recorder], lambda: outcome.write_text(recorder.written()), patience=600)
        while (verdict := running.verdict()) is None:
            time.sleep(0.02)
        if verdict != "survived":
            raise RuntimeError(f"{file} does not pass before anything is changed:\n{self.printed(running)}")
        return [
            Test(name, seconds, {module: frozenset(found) for module, found in lines.items()})
            for name, (seconds, lines) in json.loads(outcome.read_text()).items()
        ]

    def judges(self, tests: Sequence[Test], module: str, mutant: Mutant) -> list[str]:
        """Who executes what it changes, the quickest first. What runs as the module is imported concerns all."""
        concerned = [test for test in tests if mutant.lines & test.lines.get(module, frozenset())]
        return [test.name for test in sorted(concerned, key=lambda test: test.seconds)]

    def begin(self, module: str, mutant: Mutant, judges: Sequence[str]) -> Running:
        files = list(dict.fromkeys(name.split("::")[0] for name in judges))
        finder = _Finder(module, self.file(module), mutant.text)
        return self._started(files, [_Chosen(judges)], lambda: None, prepare=lambda: sys.meta_path.insert(0, finder))

    def printed(self, running: Running) -> str:
        return (self.folder / f"{running.process}.out").read_text(errors="replace")[-4000:]

    def _started(
        self,
        files: Sequence[str],
        plugins: Sequence[object],
        finish: Callable[[], object],
        *,
        prepare: Callable[[], object] = lambda: None,
        patience: float = PATIENCE,
    ) -> Running:
        process = os.fork()
        if process:
            return Running(process, time.monotonic() + patience)
        status = 70
        try:
            self._confined(patience)
            prepare()
            status = int(
                pytest.main(
                    [*_ARGUMENTS, f"-otimeout={patience / 2:g}", *files], plugins=[*_PLUGINS, _Calm(), *plugins]
                )
            )
            finish()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _confined(self, patience: float) -> None:
        """In the new process: its place, its output, its limits."""
        os.setpgid(0, 0)
        os.chdir(self.folder)
        output = os.open(f"{os.getpid()}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        cpu = CPU if patience == PATIENCE else int(patience)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONHASHSEED": "0"}
        sys.dont_write_bytecode = False  # the copy is ours, and what is compiled once serves all that follow
        sys.path[:0] = [str(self.folder / "src"), str(self.folder)]


# ---- within the forked process ---------------------------------------------------------------------------------------


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module with another text than its file has."""

    def __init__(self, module: str, file: Path, text: str) -> None:
        self.module, self.file, self.text = module, file, text

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module:
            return None
        loader = _Loader(fullname, str(self.file))
        loader.text = self.text
        return importlib.util.spec_from_file_location(fullname, self.file, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    text = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec", dont_inherit=True)


class _Calm:
    """Few examples, the same ones each time, nothing kept, nothing shrunk: a failure is all we want to see."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        settings.register_profile("mutants", self.calm(settings.default))
        settings.load_profile("mutants")
        for item in items:
            self.calmed(getattr(item, "obj", None), "_hypothesis_internal_use_settings")
            self.calmed(getattr(item, "cls", None), "settings")

    def calmed(self, holder: Any, name: str) -> None:
        found = getattr(holder, name, None)
        if isinstance(found, settings):
            setattr(getattr(holder, "__func__", holder), name, self.calm(found))

    def calm(self, found: settings | None) -> settings:
        return settings(
            found,
            max_examples=min(found.max_examples if found else 20, 20),
            stateful_step_count=min(found.stateful_step_count if found else 25, 25),
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=tuple(HealthCheck),
        )


class _Chosen:
    """Keeps the tests that were named, in the order of their names."""

    def __init__(self, names: Sequence[str]) -> None:
        self.rank = {name: rank for rank, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.rank), key=lambda each: self.rank[each.nodeid])


class _Recorder:
    """Which test executes which lines of a package; what no test began, importing did for all."""

    def __init__(self, folder: Path, package: str) -> None:
        self.package = package
        self.folder = folder / "src" / package.replace(".", "/")
        self.coverage = Coverage(data_file=None, source=[str(self.folder)], config_file=False)
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        self.coverage.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        begun = time.perf_counter()
        self.coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - begun
            self.coverage.switch_context("")

    def written(self) -> str:
        self.coverage.stop()
        data = self.coverage.get_data()
        found: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in self.seconds}
        for file in data.measured_files():
            module = f"{self.package}.{Path(file).stem}"
            for line, names in data.contexts_by_lineno(file).items():
                for name in self.seconds if "" in names else names:
                    found[name][module].append(line)
        return json.dumps({name: (seconds, found[name]) for name, seconds in self.seconds.items()})
