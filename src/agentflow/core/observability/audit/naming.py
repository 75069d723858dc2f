"""The log's name: a random word in `log.json`, signed, which every seal is bound to.

    log_name(folder, key, keys, now)      read, or given once, by whichever process comes first

Two logs with one key therefore cannot lend each other records.
"""

from __future__ import annotations

import os
import secrets

from agentflow.core.observability.audit.folder import Folder, settle, write_file
from agentflow.core.observability.audit.keys import AuditKeys
from agentflow.core.observability.audit.record import time_text
from agentflow.core.observability.audit.statements import read_statement, signed
from agentflow.core.observability.plain import Plain
from agentflow.errors import AuditError

__all__ = ["log_name", "read_name"]


def log_name(folder: Folder, keys: AuditKeys, now: float) -> str:
    """Raises AuditError where the name is not signed with one of the keys, or has gone; OSError."""
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not folder.name_file.exists():
        if any(chain.segments() for chain in folder.chains()):
            raise AuditError(f"{folder.name_file} is missing, and the records beside it are bound to what it says")
        _give_name(folder, keys, now)
    name = read_name(folder, keys)
    if name is None:
        raise AuditError(
            f"{folder.name_file} is not signed with the audit key: it was changed, or the key is another one"
        )
    return name


def read_name(folder: Folder, keys: AuditKeys) -> str | None:
    """None where it is not signed with one of the keys. Raises FileNotFoundError."""
    facts = read_statement("log", folder.name_file.read_bytes().removesuffix(b"\n"), keys)
    return None if facts is None else str(facts["log"])


def _give_name(folder: Folder, keys: AuditKeys, now: float) -> None:
    facts: dict[str, Plain] = {"log": secrets.token_hex(8), "time": time_text(now), "version": 1}
    beside = folder.path / f".log.{os.getpid()}.{secrets.token_hex(4)}"
    write_file(beside, signed("log", facts, keys.current) + b"\n", sync=True)
    try:
        os.link(beside, folder.name_file)
    except FileExistsError:
        return  # another process was quicker
    except OSError:  # a file system without links
        os.replace(beside, folder.name_file)
    finally:
        beside.unlink(missing_ok=True)
    settle(folder.path)
