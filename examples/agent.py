"""An agent at work in a folder: it lists, reads and writes files, and asks before it changes anything.

    python examples/agent.py FOLDER "Which of these notes contradict each other?"
    python examples/agent.py FOLDER "Write a table of contents into contents.md" --yes
    agentflow run examples/agent.py FOLDER "Fix the spelling of every note" --input yes=true

    model ─calls tools─▶ approve ─▶ run ─▶ model … ─▶ answer        at most so many rounds, requests and dollars

The steps go to stderr as they happen, the answer to stdout. Without --yes, and with nobody at the keyboard, every
change is refused. It needs a model that calls tools: the default one, or the one given with --model.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from threading import Thread

from agentflow import AgentFlow, AsyncFlow, ExecutionEvent, Key, SharedState, ToolCall, node
from agentflow.errors import AgentFlowError, DocumentError, InputError
from documents import PASSED_OVER, decode, is_binary

ARGS, OUTPUT = Key[list[str]]("args"), Key[str]("output")

ROUNDS, REQUESTS, DOLLARS = 20, 25, 0.50  # what one task may take
MOST_NAMES, MOST_LETTERS = 200, 20_000  # what one result may hold, so that it fits into the model's context
PREVIEW = 6  # lines of a new file that are shown before it is written

INSTRUCTIONS = """\
You work in one folder, through the tools you are given. Paths are relative to it. Look before you answer: list the
files, and read those that matter. What is refused stays undone: go on without it, and say so. At the end say in a few
sentences what you found or did."""


# ---- the tools -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folder:
    """The files below `root`, a resolved path; nothing outside of it, and nothing that is hidden, can be named."""

    root: Path

    def list_files(self, pattern: str = "*") -> str:
        """The names of the files in the folder and below it.

        Args:
            pattern: Only names like this, such as *.md or notes/*
        """
        names = [name for name in self._names() if fnmatch(name, pattern)]
        more = f"… and {len(names) - MOST_NAMES} more: use a narrower pattern" if names[MOST_NAMES:] else ""
        return "\n".join([*names[:MOST_NAMES], more]).strip() or "there are none"

    def read_file(self, path: str, first_line: int = 1) -> str:
        """The text of a file. What is too long ends with a note of the line to go on from.

        Args:
            path: A name that list_files gave.
            first_line: Where to begin; the first line is 1.
        """
        data = self.inside(path).read_bytes()
        if is_binary(data):
            raise ValueError(f"{path} is binary, not text")
        lines = decode(data).splitlines(keepends=True)[max(0, first_line - 1) :]
        text = ""
        for number, line in enumerate(lines, max(1, first_line)):
            if len(text) + len(line) > MOST_LETTERS:
                return text + (f"… read on from line {number}" if text else f"{line[:MOST_LETTERS]}… a long line")
            text += line
        return text

    def write_file(self, path: str, text: str) -> str:
        """Write a file, in place of the one that may be there. The user is asked first.

        Args:
            path: Where to, relative to the folder; folders are made as needed.
            text: All that is to stand in the file.
        """
        file = self.inside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return f"wrote {count(text.splitlines(), 'line')}"

    def inside(self, path: str) -> Path:
        """The file of that name. Raises PermissionError where .., a link or a hidden name leads elsewhere."""
        file = (self.root / path).resolve()
        if not file.is_relative_to(self.root):
            raise PermissionError(f"{path} is outside of the folder")
        if any(part.startswith(".") for part in file.relative_to(self.root).parts):
            raise PermissionError(f"{path} is hidden, and hidden files are out of bounds")
        if file.exists() and not file.is_file():
            raise PermissionError(f"{path} is no file")
        return file

    def _names(self) -> list[str]:
        found = []
        for here, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in PASSED_OVER)
            found += [Path(here, name).relative_to(self.root).as_posix() for name in sorted(files) if name[0] != "."]
        return found


# ---- the approval --------------------------------------------------------------------------------------------


class Approval:
    """Asked before each call of a tool. Reading is always allowed; a change is asked for, one after the other."""

    def __init__(self, folder: Folder, *, yes: bool) -> None:
        self.folder = folder
        self.yes = yes
        self.one_at_a_time = asyncio.Lock()

    async def __call__(self, call: ToolCall) -> bool | str:
        if call.name != "write_file" or self.yes:
            return True
        if not sys.stdin.isatty():
            return "refused: nobody is there to allow it (the user can run this again with --yes)"
        try:
            proposal = self.proposal(call.arguments)
        except (OSError, ValueError) as error:  # nobody need be asked for what cannot be done
            return str(error)
        async with self.one_at_a_time:
            said = await typed(f"{proposal}\nallow it? [y/N] ")
        return True if said.strip().lower() in ("y", "yes") else "refused: the user does not want this change"

    def proposal(self, arguments: Mapping[str, object]) -> str:
        """What is about to change. Signs that would move the cursor are blanked: the model may have written any."""
        path, lines = str(arguments.get("path", "")), str(arguments.get("text", "")).splitlines()
        verb = "replace" if self.folder.inside(path).exists() else "write"
        shown = [f"  │ {visible(line)[:100]}" for line in lines[:PREVIEW]]
        more = [f"  │ … {len(lines) - PREVIEW} more"] if lines[PREVIEW:] else []
        return "\n".join([f"{verb} {visible(path)}, {count(lines, 'line')}:", *shown, *more])


async def typed(question: str) -> str:
    """A line from the keyboard, read in a thread that nobody waits for, so that Ctrl-C ends the program at once."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def settle(line: str) -> None:
        if not answer.done():
            answer.set_result(line)

    def read() -> None:
        line = ""
        with suppress(EOFError):
            line = input()
        with suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(settle, line)

    print(question, end="", file=sys.stderr, flush=True)
    Thread(target=read, daemon=True).start()
    return await answer


def visible(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)


def count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


# ---- the flow ------------------------------------------------------------------------------------------------


@node
async def work(state: SharedState) -> None:
    folder, task, yes = read_input(state)
    tools: list[Callable[..., object]] = [folder.list_files, folder.read_file, folder.write_file]
    state[OUTPUT] = await (
        AgentFlow.model()
        .system(INSTRUCTIONS)
        .prompt(task)
        .tools(*tools, approve=Approval(folder, yes=yes))
        .limits(requests=REQUESTS, tool_rounds=ROUNDS, dollars=DOLLARS if price_is_known() else None)
        .streaming()
        .execute()
    )


flow = AsyncFlow(work, name="agent")


def read_input(state: SharedState) -> tuple[Folder, str, bool]:
    place, *words = state[ARGS] or ["."]
    if not Path(place).is_dir():
        raise DocumentError(f"{place}: no such folder; the first argument is the folder to work in")
    if not " ".join(words).strip():
        raise InputError(f'say what is to be done in {place}, as in "Which of these notes are about money?"')
    yes = state.get("yes", False)
    if not isinstance(yes, bool):
        raise InputError(f"yes is {yes!r}: give --input yes=true to allow every change", field="yes")
    return Folder(Path(place).resolve()), " ".join(words), yes


def price_is_known() -> bool:
    registry = AgentFlow.registry
    return registry.describe(registry.default_model().name).current_price() is not None


# ---- the command line ----------------------------------------------------------------------------------------


class Steps:
    """Tells on stderr what happens, and adds up what it cost."""

    def __init__(self) -> None:
        self.calls, self.tokens, self.dollars = 0, 0, 0.0
        self.said = ""

    def see(self, event: ExecutionEvent) -> None:
        data = event.data
        match event.kind:
            case "chunk":
                self.said += str(data["content"])
            case "tool_start":
                self.tell(self.said.strip())  # what the model says while it works
                self.said = ""
                self.tell(f"→ {data['tool']}({brief(data['arguments'])})")
            case "tool_error":
                self.tell(f"✗ {data['tool']}: {data['error']}")
            case "tool_refused":
                self.tell(f"✗ {data['tool']}: {data['reason']}")
            case "retry":
                self.tell(f"trying again: {data['error']}")
            case "model_success":
                self.add(data)

    def add(self, data: Mapping[str, object]) -> None:
        spent = [data["input_tokens"], data["output_tokens"]]
        self.calls += 1
        self.tokens += sum(count for count in spent if isinstance(count, int))
        self.dollars += cost if isinstance(cost := data["cost"], float) else 0.0

    def tell(self, line: str) -> None:
        if line:
            print(visible(line), file=sys.stderr, flush=True)

    def summary(self) -> str:
        price = f", ${self.dollars:.4f}" if self.dollars else ""
        return f"({self.calls} model call{'s' * (self.calls != 1)}, {self.tokens:,} tokens{price})"


def brief(arguments: object) -> str:
    assert isinstance(arguments, Mapping)
    shown = {name: repr(value) for name, value in arguments.items()}
    return ", ".join(f"{name}={text if len(text) <= 60 else text[:60] + '…'}" for name, text in shown.items())


async def main(folder: str, task: str, model: str | None, *, yes: bool) -> None:
    if model is not None:
        AgentFlow.registry.set_default(model)
    steps = Steps()
    try:
        async with flow.stream({"args": [folder, task], "yes": yes}) as events:
            async for event in events:
                steps.see(event)
        print(events.result.state[OUTPUT])
    finally:
        steps.tell(steps.summary() if steps.calls else "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Let a model work in a folder.")
    parser.add_argument("folder", help="where it may read, and write what you allow")
    parser.add_argument("task", help="what is to be done, in words")
    parser.add_argument("--yes", action="store_true", help="allow every change without asking")
    parser.add_argument("--model", help="one that calls tools; `agentflow models` lists them")
    said = parser.parse_args()
    try:
        asyncio.run(main(said.folder, said.task, said.model, yes=said.yes))
    except AgentFlowError as error:
        sys.exit(f"error: {error.__cause__ or error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was written stays")
