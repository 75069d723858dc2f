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
    recording, answer = Recording(wanted=not no_record), _Answer()
    try:
        with recording:
            asyncio.run(answer.print(builder if system is None else builder.system(system), stream=stream))
    except KeyboardInterrupt:
        what = "what stands above is not the whole answer" if answer.begun else "there is no answer yet"
        leave_interrupted(f"\ninterrupted; {what}")
    finally:
        if recording.trouble is not None:
            click.echo(f"note: {recording.trouble}", err=True)


class _Answer:
    """`begun` says whether something of it has been printed."""

    def __init__(self) -> None:
        self._last = ""

    @property
    def begun(self) -> bool:
        return bool(self._last)

    async def print(self, builder: LLMClientBuilder, *, stream: bool) -> None:
        try:
            await self._print(builder, stream=stream)
        finally:
            await AgentFlow.aclose()  # what a cache is still keeping is kept

    async def _print(self, builder: LLMClientBuilder, *, stream: bool) -> None:
        if stream:
            _note(await self._print_as_it_comes(builder))
            return
        reply = await builder.execute_full()
        self._last = text_of(reply).rstrip("\n")
        click.echo(self._last)
        _note(reply.finish_reason)

    async def _print_as_it_comes(self, builder: LLMClientBuilder) -> str | None:
        """Why it ended, as far as the provider says it."""
        finish = None
        try:
            async with builder.execute_streaming() as chunks:
                async for chunk in chunks:
                    if chunk.restart:
                        click.echo("\nnote: the stream broke; the answer begins anew", err=True)
                    click.echo(chunk.content, nl=False)  # flushes
                    self._last, finish = chunk.content or self._last, chunk.finish_reason or finish
                if not self._last:
                    text_of(await chunks.collect())
        finally:
            if self._last and not self._last.endswith("\n"):
                click.echo()
        return finish


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
