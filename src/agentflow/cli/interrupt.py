"""How a command ends after Ctrl-C: with a message and exit code 130, and at once when it is pressed again."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import NoReturn

import click

from agentflow.cli.failures import INTERRUPTED

__all__ = ["leave_interrupted"]


def leave_interrupted(message: str) -> NoReturn:
    """Say what became of the work, and leave.

    All that may be left to do is to wait for threads that cannot be stopped. Whoever presses Ctrl-C again does not want
    to, so from here on the signal ends the process as it would any program. That comes before the message: who has read
    it may press the key.
    """
    with suppress(ValueError):  # not the main thread: no signal reaches it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    click.echo(message, err=True)
    raise click.exceptions.Exit(INTERRUPTED)
