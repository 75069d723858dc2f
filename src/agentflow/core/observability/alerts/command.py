"""Runs a program for an alert: no shell, a time limit, and nothing left behind.

    Command(["./page", "--now"], timeout=30)

It gets the alert as JSON on its standard input, and as environment variables:

    AGENTFLOW_ALERT_RULE  …_STATE  …_PREVIOUS  …_SEVERITY  …_VALUE  …_MESSAGE  …_SUMMARY  …_FINGERPRINT  …_ID
    AGENTFLOW_ALERT_LABEL_MODEL    each label, its name in capitals, with _ for what no variable's name may have

What it prints is dropped. An exit status other than 0 is a failure. When its time is up, or nobody waits for it any
more, it is killed with all that it started in its own process group, and waited for.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from time import monotonic
from typing import IO, Final

from agentflow.core.observability.alerts.alert import Alert
from agentflow.core.threads import call_in_thread
from agentflow.errors import AlertActionError, ConfigurationError, OperationTimeoutError

__all__ = ["Command"]

_PREFIX: Final = "AGENTFLOW_ALERT_"
_LONGEST: Final = 8_192  # bytes of one variable; the system takes 128 KiB, and a few MiB of all together
_MOST: Final = 50  # labels that become variables; the JSON has all
_LOOK: Final = 0.05  # seconds between looks at whether somebody still waits


@dataclass(frozen=True, slots=True)
class Command:
    """`arguments` is the program and what it is given, as a list. `timeout` is in seconds."""

    arguments: Sequence[str] = field()
    timeout: float = field(default=30.0, kw_only=True)

    def __post_init__(self) -> None:
        words = self.arguments
        if isinstance(words, str) or not words or not all(isinstance(each, str) and "\0" not in each for each in words):
            allowed = "a list: the program and its arguments, which no shell looks at"
            raise ConfigurationError(f"command: found {words!r:.60}, allowed is {allowed}")
        if not 0 < self.timeout < float("inf"):
            raise ConfigurationError(f"timeout: found {self.timeout}, allowed is a finite number of seconds above 0")

    async def act(self, alert: Alert) -> None:
        unwanted = threading.Event()
        text = json.dumps(alert.to_json(), ensure_ascii=True).encode("ascii")
        try:
            status = await call_in_thread(self._run, text, _environment(alert), unwanted)
        finally:
            unwanted.set()
        if status is None:
            raise OperationTimeoutError(f"the command {os.path.basename(self.arguments[0])}", self.timeout)
        if status != 0:
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            raise AlertActionError(f"the command {os.path.basename(self.arguments[0])} {how}")

    def _run(self, text: bytes, environment: Mapping[str, str], unwanted: threading.Event) -> int | None:
        """In a thread: its exit status, None where its time was up."""
        with _file(text) as given:
            process = subprocess.Popen(
                list(self.arguments),
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        with process:
            end = monotonic() + self.timeout
            while not unwanted.is_set() and (left := end - monotonic()) > 0:
                try:
                    return process.wait(min(left, _LOOK))
                except subprocess.TimeoutExpired:
                    continue
            _kill(process)
        return None


def _file(text: bytes) -> IO[bytes]:
    """To be read from its beginning. A pipe would have to be written to while the program runs, as it pleases."""
    if hasattr(os, "memfd_create"):  # a full disk is a reason for an alert, so it should not stop one
        file: IO[bytes] = os.fdopen(os.memfd_create("alert"), "w+b")
    else:
        file = TemporaryFile()  # noqa: SIM115 - whoever gets it closes it
    try:
        file.write(text)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it started; it has not been waited for yet, so its number is still its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, PermissionError, ProcessLookupError):  # no groups here, or not ours
        process.kill()


def _environment(alert: Alert) -> dict[str, str]:
    facts = alert.to_json()
    own = {name: facts[name] for name in ("rule", "state", "previous", "severity", "value", "message", "summary")}
    own |= {name: facts[name] for name in ("fingerprint", "id")}
    own |= {f"label_{name}": value for name, value in list(alert.labels.items())[:_MOST]}
    return {**os.environ, **{_variable(name): _text(value) for name, value in own.items()}}


def _variable(name: str) -> str:
    return _PREFIX + re.sub(r"[^A-Z0-9_]", "_", name.upper()[:100])


def _text(value: object) -> str:
    text = "" if value is None else str(value).replace("\0", "")
    return text.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")
