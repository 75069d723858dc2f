"""The command `agentflow`: finds the command asked for, and turns every failure into a message and an exit code.

    agentflow run flow.py   ──▶  agentflow.cli.run.command
                            ◀──  0 done · 1 the run failed · 2 bad input · 3 configuration · 4 parked · 5 late · 130 ^C

A command's module is imported when it is asked for, so that `agentflow --help` loads click alone.
"""

from __future__ import annotations

import os
import sys
import warnings
from difflib import get_close_matches
from importlib import import_module
from typing import Final, NoReturn

import click

from agentflow.cli.debug import debug_option, debugging
from agentflow.cli.failures import EXIT_CODES, INTERRUPTED, exit_code, explain, keyless, one_line
from agentflow.cli.interrupt import leave_interrupted

__all__ = ["commands", "main"]

COMMANDS: Final = {
    "run": "Run the flow in a file.",
    "ask": "Ask a model one question.",
    "answer": "Answer what a parked run asks, and go on with it.",
    "runs": "List what has been recorded; resume, fork, cancel, show a run.",
    "worker": "Go on with runs that nobody runs.",
    "trace": "Show a recorded run: what it did, why it was slow, what it cost.",
    "top": "Watch rates, percentiles and spending as they are.",
    "batch": "Ask many requests at half the price, hours later.",
    "cost": "Say what was spent, by model, flow or day.",
    "bench": "Measure models under a load that does not wait for them.",
    "compress": "Make a local model smaller, and say what was lost.",
    "deploy": "Make a folder that runs a model elsewhere.",
    "serve": "Answer OpenAI's API with these models.",
    "budget": "Say what is left of the budgets.",
    "cache": "Say what caches hold and have saved; purge them.",
    "audit": "Check, read and hand on the audit log.",
    "models": "List the models that can be asked.",
    "route": "Show which model a router would ask, and why.",
    "router": "Train, evaluate and show what routers learn.",
    "artifact": "Show what compression made, and which is better.",
    "distill": "Teach a model of your own what a dear one has answered.",
    "graph": "Print the flow in a file as a Mermaid chart.",
    "doctor": "Say what is installed, configured and reachable.",
    "init": "Write a models.yml and a first flow.",
}

_EPILOG: Final = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())


class _Commands(click.Group):
    """The commands by name, each in a module of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"agentflow.cli.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, n=1)
            if args[0].split(":", 1)[0].endswith(".py"):
                near = [f"run {args[0]}"]
            hint = f"Did you mean `agentflow {near[0]}`?" if near else f"There are: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            leave_interrupted("\ninterrupted")
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise  # click says these itself
        except Exception as error:  # noqa: BLE001 - nothing is above us: what is not said here is a traceback
            fail(ctx, error)


def fail(ctx: click.Context, error: Exception) -> NoReturn:
    """Say what went wrong and leave. The message comes last, below the traceback that --debug shows."""
    if debugging(ctx):
        import traceback

        click.echo(keyless("".join(traceback.format_exception(error))), err=True, nl=False)
    click.echo(f"error: {explain(error, debugging=debugging(ctx))}", err=True)
    ctx.exit(exit_code(error))


def _version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"agentflow {version('agentflow-engine')}")
    ctx.exit()


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@debug_option
def commands() -> None:
    """Async flows that call language models."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    warnings.formatwarning = _plain_warning
    _open_closed_streams()
    try:
        sys.exit(commands(prog_name="agentflow", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"error: {_usage(error)}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)


def _usage(error: click.ClickException) -> str:
    """click's message, on the one line that every error here has."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    see = "" if context is None else f" (see {context.command_path} --help)"
    return one_line(error.format_message()) + see


def _open_closed_streams() -> None:
    """Whoever started us with a standard stream closed (`>&-`) wants no word of it; Python has None there."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - open to the end


def _plain_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {message}\n"


if __name__ == "__main__":
    main()
