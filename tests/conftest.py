"""What every test may use: where recorded traffic lies, and what a missing service means."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from agentflow.core.observability.redaction.known_secrets import KNOWN

settings.register_profile("house", deadline=None)  # a shared machine is slow now and then, which is no failure
settings.load_profile("house")

ROOT = Path(__file__).resolve().parent.parent


def missing_service(reason: str) -> None:
    """Skip a test whose outside program is missing; in CI that is a failure, so that no check is lost unseen."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must provide this service: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded traffic beside the checkout; tests that use it skip where it is missing."""
    folder = Path(os.environ.get("AGENTFLOW_SHARED", ROOT.parent / "shared"))
    if not (folder / "cassettes").is_dir():
        pytest.skip(f"recorded traffic is not here ({folder.name}/cassettes); set AGENTFLOW_SHARED to run this")
    return folder


@pytest.fixture(scope="session")
def node_program() -> str:
    """The path of node, for servers that come from npm."""
    program = shutil.which("node")
    if program is None:
        missing_service("node is not installed")
    assert program is not None
    return program


@pytest.fixture(autouse=True)
def forgotten_secrets() -> Iterator[None]:
    """What one test makes known as a secret, the next does not know: tests agree on what a key looks like."""
    values, spelt = KNOWN._values, KNOWN._spelt
    yield
    if KNOWN._values is not values:
        KNOWN._values, KNOWN._spelt = values, spelt
        KNOWN.version += 1


_TABLES = pytest.StashKey[list[str]]()
Tell = Callable[[Iterable[str]], None]


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Tell:
    """Lines that are printed after the run, whatever pytest captures: what was compared, and with what outcome."""
    return pytestconfig.stash.setdefault(_TABLES, []).extend


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands its lines to the process that prints them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tables"] = session.config.stash.get(_TABLES, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})
    node.config.stash.setdefault(_TABLES, []).extend(output.get("tables", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_TABLES, [])
    if lines:
        terminalreporter.section("what was compared")
        for line in lines:
            terminalreporter.line(line)
