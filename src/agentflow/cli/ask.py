"""`agentflow ask "…"`: one question, one answer, streamed to stdout as it comes.

cat notes.md | agentflow ask "Summarise in two sentences:"      the piped text follows the question
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.interrupt import leave_interrupted
from agentflow.cli.models import stand_in_notice, use_model
from agentflow.cli.recording import Recording
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.answer import text_of
from agentflow.llm.builder import LLMClientBuilder

__all__ = ["command"]


@click.command("ask", short_help="Ask a model one question.")
@click.argument("words", nargs=-1, metavar="[PROMPT]")
@click.option("-m", "--model", metavar="NAME", help="Which model; `agentflow models` lists them.")
@click.option("-s", "--system", metavar="TEXT", help="Instructions that come before the prompt.")
@click.option("--stream/--no-stream", default=True, help="Print the answer as it comes (the default), or whole.")
@click.option("--no-record", is_flag=True, help="Do not keep the question for `agentflow trace`.")
@debug_option
def command(words: tuple[str, ...], model: str | None, system: str | None, stream: bool, no_record: bool) -> None:
    """Ask a model. What is piped in follows the PROMPT after a blank line, or is the prompt."""
    prompt = "\n\n".join(part for part in (" ".join(words).strip(), _piped()) if part)
    if not prompt:
        raise click.UsageError('There is nothing to ask: give a prompt, as in agentflow ask "Why is the sky blue?"')
    if model is not None:
        use_model(model)
    notice = stand_in_notice(AgentFlow.registry.default_model().name)
    if notice is not None:
        click.echo(notice, err=True)
    builder = AgentFlow.model().prompt(prompt)
    recording = Recording(wanted=not no_record)
    try:
        with recording:
            asyncio.run(_answer(builder if system is None else builder.system(system), stream=stream))
    except KeyboardInterrupt:
        leave_interrupted("\ninterrupted; what stands above is not the whole answer")
    finally:
        if recording.trouble is not None:
            click.echo(f"note: {recording.trouble}", err=True)


async def _answer(builder: LLMClientBuilder, *, stream: bool) -> None:
    if not stream:
        reply = await builder.execute_full()
        click.echo(text_of(reply).rstrip("\n"))
        _note(reply.finish_reason)
        return
    last, finish = "", None
    try:
        async with builder.execute_streaming() as chunks:
            async for chunk in chunks:
                if chunk.restart:
                    click.echo("\nnote: the stream broke; the answer begins anew", err=True)
                click.echo(chunk.content, nl=False)  # flushes
                last, finish = chunk.content or last, chunk.finish_reason or finish
            if not last:
                text_of(await chunks.collect())
    finally:
        if last and not last.endswith("\n"):
            click.echo()
    _note(finish)


_CUT_OFF: Final = {"length": "max_tokens is reached", "content_filter": "the provider blocked the rest"}


def _note(finish: str | None) -> None:
    """Say where what stands above is not the whole answer."""
    if (reason := _CUT_OFF.get(finish or "")) is not None:
        click.echo(f"note: the answer is cut off: {reason}", err=True)


def _piped() -> str:
    """What was piped in; nothing from a terminal, which would wait for somebody to type."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    return sys.stdin.buffer.read().decode("utf-8", "replace").removeprefix("\ufeff").strip()
