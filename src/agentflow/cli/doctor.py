"""`agentflow doctor`: what is installed, configured and reachable; 0 when a run can call its model, else 1.

Keys are named by their variables, never shown.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.failures import FAILED
from agentflow.cli.recorded import OFF, named_file
from agentflow.cli.servers import USUAL, Answer, probe
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.store import DEFAULT_PATH
from agentflow.errors import AgentFlowError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry

__all__ = ["command"]

_PACKAGES: Final = ("agentflow-engine", "aiohttp", "msgspec", "PyYAML", "click", "rich")
_MARKS: Final = {"ok": ("✓", "green"), "note": ("·", "white"), "bad": ("✗", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: `grade` is ok, note (worth knowing) or bad (a run would fail)."""

    grade: str
    text: str


@click.command("doctor", short_help="Say what is installed, configured and reachable.")
@debug_option
def command() -> None:
    """Check this installation. Exit code 0: a run can call its default model; 1: something stands in the way."""
    findings: list[Finding] = []
    for title, section in (
        ("Installed", _installed()),
        ("Configuration", _configured()),
        ("Servers here", _reachable()),
    ):
        click.echo(click.style(title, bold=True))
        for finding in section:
            mark, colour = _MARKS[finding.grade]
            click.echo(f"  {click.style(mark, fg=colour)} {finding.text}")
            findings.append(finding)
    bad = sum(finding.grade == "bad" for finding in findings)
    click.echo(f"\n{bad} problem{'s' * (bad != 1)}" if bad else "\nAll is well.")
    if bad:
        raise click.exceptions.Exit(FAILED)


def _installed() -> Iterator[Finding]:
    yield Finding("ok", f"Python {platform.python_version()} at {sys.executable}")
    for package in _PACKAGES:
        try:
            yield Finding("ok", f"{package} {version(package)}")
        except PackageNotFoundError:
            yield Finding("bad", f"{package} is missing: pip install {package}")


def _configured() -> Iterator[Finding]:
    yield from _places()
    try:
        registry = AgentFlow.registry
    except AgentFlowError as error:
        yield Finding("bad", str(error))
        return
    problems = list(registry.problems())
    yield from (Finding("bad", problem) for problem in problems)
    yield from _keys(registry, said=problems)
    yield from (Finding("note", remark) for remark in registry.remarks())
    yield from _default(registry, said=problems)
    yield from _recorded(registry)


def _recorded(registry: ModelRegistry) -> Iterator[Finding]:
    """Where runs are kept, and whether what records them has all that it needs: without that nothing runs."""
    observing = registry.observing
    named = named_file()
    kept = named != OFF if named is not None else observing.wants_runs is not False
    yield Finding(
        "note", f"runs are kept in {named or observing.runs_path or DEFAULT_PATH}" if kept else "no runs are kept"
    )
    for section, extra in observing.extras.items():
        try:
            extra.require()
            yield Finding("ok", f"{section}: agentflow-engine[{extra.name}] is installed")
        except AgentFlowError as error:
            yield Finding("bad", f"{section}: {error}")
    try:
        settings = observing.audit_settings
        if settings is not None:
            AuditKeys.from_environment(settings.key_env, observing.audit_environment(settings.key_env))
            yield Finding("ok", f"audit log in {settings.path}: {settings.key_env} is set")
    except AgentFlowError as error:
        yield Finding("bad", f"audit: {error}")


def _default(registry: ModelRegistry, *, said: Sequence[str]) -> Iterator[Finding]:
    try:
        default = registry.default_model()
    except AgentFlowError as error:
        if str(error) not in said:
            yield Finding("bad", f"default model: {error}")
        return
    try:
        registry.resolve(default.name)
    except AgentFlowError as error:
        yield Finding("bad", f"default model {default.name}: {error}")
    else:
        reason = f"default model {default.name}: {default.reason}" if default.chosen else default.reason
        yield Finding("ok" if default.chosen else "note", reason)


def _places() -> Iterator[Finding]:
    """The files in the order in which they are laid over each other, the weakest first."""
    yield Finding("ok", "1. built-in models.yml")
    named = os.environ.get("AGENTFLOW_CONFIG")
    places = [Path("~/.config/agentflow/models.yml").expanduser(), Path.cwd() / "models.yml"]
    for number, place in enumerate(places, 2):
        found = place.exists()
        yield Finding("ok" if found else "note", f"{number}. {place}{'' if found else ' (not there)'}")
    if named:
        yield Finding("ok" if Path(named).exists() else "bad", f"4. {named} (AGENTFLOW_CONFIG)")
    else:
        yield Finding("note", "4. AGENTFLOW_CONFIG is not set")


def _keys(registry: ModelRegistry, *, said: Sequence[str]) -> Iterator[Finding]:
    """Whether each provider's key is there. What is wrong with all of them at once has been said before."""
    for provider in registry.providers():
        names = registry.key_names(provider)
        if not names:
            continue
        try:
            found = registry.key_found(provider)
        except AgentFlowError as error:
            if str(error) not in said:
                yield Finding("bad", f"{provider}: {error}")
        else:
            yield Finding(
                "ok" if found else "note", f"{provider}: {' or '.join(names)} is {'' if found else 'not '}set"
            )


def _reachable() -> Iterator[Finding]:
    for answer in probe(USUAL):
        yield Finding("note" if answer.models is None else "ok", _server(answer))


def _server(answer: Answer) -> str:
    server = answer.server
    where = f"{server.title}, 127.0.0.1:{server.port}"
    if not answer.reached:
        return f"{where}: nothing answers"
    if answer.models is None:
        return f"{where}: something else answers there"
    names = ", ".join(f"{server.provider}/{model}" for model in answer.models[:5])
    more = f" and {len(answer.models) - 5} more" if answer.models[5:] else ""
    return f"{where}: {names + more if names else 'no model loaded'}"
