"""`agentflow audit`: check the audit log, read it, hand parts of it on, forget contents.

    agentflow audit verify          0: sound · 1: a fault, named · 3: the key is missing
    agentflow audit show --action model. --since 2h
    agentflow audit export june.jsonl --since 2026-06-01 --until 2026-07-01
    agentflow audit erase customer/17

The log is the one of models.yml (`audit:`), unless --path and --key-env say otherwise. Keys come from the environment.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar, get_args

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.failures import FAILED
from agentflow.cli.recorded import since_option, until_option
from agentflow.core.observability.audit.actions import Outcome
from agentflow.core.observability.audit.content import ContentKeys, ContentSealer
from agentflow.core.observability.audit.exporting import ExportFormat, export, manifest_of, verify_export
from agentflow.core.observability.audit.findings import Verification
from agentflow.core.observability.audit.folder import Folder
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.reading import Entry, Selection, read
from agentflow.core.observability.audit.settings import DEFAULT_KEY_ENV, DEFAULT_PATH, AuditSettings, open_audit
from agentflow.core.observability.audit.verifying import verify
from agentflow.core.observability.plain import Plain
from agentflow.errors import AuditError, ConfigurationError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.observing import Observing

__all__ = ["command"]

C = TypeVar("C", bound=Callable[..., object])
_MOST_NOTES: Final = 20

_path_option = click.option(
    "--path", metavar="DIR", help=f"The folder of the log (else that of models.yml, else {DEFAULT_PATH})."
)
_key_option = click.option(
    "--key-env",
    metavar="NAME",
    help=f"The variable that holds the audit key (else models.yml's, else {DEFAULT_KEY_ENV}).",
)


def _selecting(function: C) -> C:
    """The options that pick records."""
    for option in (
        click.option("--action", metavar="NAME", help="model.call; model. for all that begin so."),
        click.option("--actor", metavar="NAME", help="Who did it."),
        click.option("--tenant", metavar="NAME", help="For whom."),
        click.option("--resource", metavar="NAME", help="To what: a model, a tool, a flow."),
        click.option("--outcome", type=click.Choice([str(each) for each in Outcome]), help="What became of it."),
        click.option("--run", metavar="ID", help="In which run."),
        click.option("--trace", metavar="ID", help="In which trace."),
        click.option("--key", metavar="FINGERPRINT", help="With which key."),
        since_option,
        until_option,
    ):
        function = option(function)
    return function


@click.group("audit", short_help="Check, read and hand on the audit log.")
@debug_option
def command() -> None:
    """Check, read and hand on the audit log; forget contents."""


@command.command("verify", short_help="Check every seal, link and head.")
@click.argument("file", required=False, metavar="[EXPORT]")
@_path_option
@_key_option
@click.option("--anchor", "anchors", multiple=True, metavar="FILE", help="Signed heads that were put elsewhere.")
@click.option("--json", "wants_json", is_flag=True, help="Print what was found as JSON.")
@debug_option
def verify_command(
    file: str | None, path: str | None, key_env: str | None, anchors: tuple[str, ...], wants_json: bool
) -> None:
    """Check the log from its first record to its last, and name the first that was altered, is missing, stands in the
    wrong place or was cut off. With EXPORT, check that file against its manifest instead.
    """
    settings = _settings(path, key_env)
    keys = _keys(settings)
    if file is not None:
        _verify_export(file, keys)
        return
    known = anchors or _anchors_of(settings)
    found = verify(settings.path, keys, anchors=known)
    if wants_json:
        click.echo(json.dumps(found.plain(), indent=2))
    else:
        _tell(found, anchored=bool(known))
    if not found.sound:
        raise click.exceptions.Exit(FAILED)


def _anchors_of(settings: AuditSettings) -> tuple[str, ...]:
    """That of models.yml. One that is not there yet, or not there any more, is no fault of the log, but is said."""
    if settings.anchor is None:
        return ()
    if Path(settings.anchor).exists():
        return (settings.anchor,)
    click.echo(f"note: the anchor of models.yml is not there: {settings.anchor}", err=True)
    return ()


def _verify_export(file: str, keys: AuditKeys) -> None:
    if not verify_export(file, keys):
        raise AuditError(f"{file} is not what {manifest_of(Path(file)).name} says, or that is not signed with this key")
    click.echo(f"sound: {file} is as it was exported")


def _tell(found: Verification, *, anchored: bool) -> None:
    for stone in found.removed:
        click.echo(
            f"removed: {stone.chain} records {stone.first} to {stone.last} ({stone.first_time} to {stone.last_time}), "
            f"on {stone.removed}, for their {stone.reason}"
        )
    for note in found.notes[:_MOST_NOTES]:
        click.echo(f"note: {note}")
    if len(found.notes) > _MOST_NOTES:
        click.echo(f"note: and {len(found.notes) - _MOST_NOTES} more; --json lists all")
    for fault in found.faults:
        click.echo(f"{fault.kind}: {fault}")
    counted = (
        f"{_count(found.records, 'record')} in {_count(found.segments, 'file')} of {_count(found.chains, 'chain')}"
    )
    click.echo(f"{'sound' if found.sound else 'NOT SOUND'}: {counted}")
    if found.sound and not anchored:
        click.echo("note: without --anchor an older copy of the whole log would look as sound", err=True)


def _count(number: Plain, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}" if isinstance(number, int) else f"? {noun}s"


@command.command("show", short_help="Print records.")
@_path_option
@_key_option
@_selecting
@click.option("-n", "--last", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@click.option("--all", "wants_all", is_flag=True, help="All of them, the oldest first.")
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--content", "wants_content", is_flag=True, help="Decrypt what was kept of contents; with --json.")
@debug_option
def show_command(
    path: str | None,
    key_env: str | None,
    last: int,
    wants_all: bool,
    wants_json: bool,
    wants_content: bool,
    **picked: str | float | None,
) -> None:
    """Print records, the newest last. Nothing is checked here: that is what `agentflow audit verify` is for."""
    settings = _settings(path, key_env)
    selection = replace(_selection(picked), last=None if wants_all else last)
    opener = _opener(settings) if wants_content else None
    for entry in read(settings.path, selection):
        click.echo(json.dumps(_as_json(entry, opener), ensure_ascii=False) if wants_json else _line(entry))


@command.command("export", short_help="Write records to a file, with a signed manifest.")
@click.argument("target", metavar="FILE")
@_path_option
@_key_option
@_selecting
@click.option(
    "--format", "format", type=click.Choice(get_args(ExportFormat)), help="Else what FILE ends in, else jsonl."
)
@debug_option
def export_command(
    target: str, path: str | None, key_env: str | None, format: ExportFormat | None, **picked: str | float | None
) -> None:
    """Write records to FILE, and beside it FILE.manifest.json: how many there are, their digest, whether the log was
    sound, signed with the audit key. `agentflow audit verify FILE` checks it.
    """
    settings = _settings(path, key_env)
    chosen: ExportFormat = format or ("csv" if target.endswith(".csv") else "jsonl")
    facts = export(settings.path, target, _keys(settings), _selection(picked), format=chosen, now=time.time())
    click.echo(f"{_count(facts['records'], 'record')} in {target}, signed in {manifest_of(Path(target)).name}")
    if not facts["sound"]:
        click.echo("warning: the log is not sound; `agentflow audit verify` says where", err=True)
        raise click.exceptions.Exit(FAILED)


@command.command("erase", short_help="Drop the content key of a subject.")
@click.argument("subject")
@_path_option
@_key_option
@click.confirmation_option(prompt="What was kept of this subject's contents can never be read again. Go on?")
@debug_option
def erase_command(subject: str, path: str | None, key_env: str | None) -> None:
    """Drop the content key of SUBJECT (a person, a tenant): digests of their contents mean nothing any more, and
    ciphertexts cannot be read. The records stay, and the log stays sound. Exit code 1 where there was no such key.
    """
    settings = replace(_settings(path, key_env), content="digest")
    with open_audit(settings, _environ(settings), visiting=True) as log:
        found = log.erase(subject)
    if not found:
        click.echo("there is no content key of this subject", err=True)
        raise click.exceptions.Exit(FAILED)
    click.echo("erased")


# ---- what they share -----------------------------------------------------------------------------------------


def _settings(path: str | None, key_env: str | None) -> AuditSettings:
    """Those of models.yml, where it has any, but for what the command line says."""
    observing = _observing(path)
    settings = (None if observing is None else observing.audit_settings) or AuditSettings()
    return replace(settings, path=path or settings.path, key_env=key_env or settings.key_env)


def _environ(settings: AuditSettings) -> Mapping[str, str]:
    """The environment, and .env."""
    observing = _observing(settings.path)
    return os.environ if observing is None else observing.audit_environment(settings.key_env)


def _observing(path: str | None) -> Observing | None:
    """What models.yml says; None where it is broken and a folder is named, so that it is not needed."""
    try:
        return AgentFlow.registry.observing
    except ConfigurationError:
        if path is None:
            raise
        return None


def _keys(settings: AuditSettings) -> AuditKeys:
    return AuditKeys.from_environment(settings.key_env, _environ(settings))


def _selection(picked: dict[str, str | float | None]) -> Selection:
    return Selection(**picked)  # type: ignore[arg-type]  # the options are named as its fields are


def _opener(settings: AuditSettings) -> ContentSealer:
    from agentflow.integrations.aes_gcm import AesGcm

    return ContentSealer("encrypted", ContentKeys(Folder(Path(settings.path)).keys), AesGcm())


def _as_json(entry: Entry, opener: ContentSealer | None) -> dict[str, Plain]:
    shown: dict[str, Plain] = {"chain": entry.chain, **entry.record.plain()}
    if opener is not None and entry.record.content is not None:
        try:
            opened = opener.open(entry.record.content)
        except ValueError as error:
            shown["opened_error"] = str(error)
        else:
            shown["opened"] = None if opened is None else json.loads(opened)
    return shown


def _line(entry: Entry) -> str:
    record = entry.record
    facts = [
        f"{name}={value}"
        for name, value in (("tenant", record.tenant), ("run", record.run), ("key", record.key))
        if value is not None
    ]
    facts += [f"{name}={_shown(value)}" for name, value in record.data.items()]
    place = f"{entry.chain}/{record.seq}"
    what = f"{record.action:<20} {record.outcome:<9} {record.actor or '-'} {record.resource or '-'}"
    return _printable(f"{record.time[:23]}Z {place:<14} {what}  {' '.join(facts)}".rstrip())


def _shown(value: Plain) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _printable(words: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in words)
