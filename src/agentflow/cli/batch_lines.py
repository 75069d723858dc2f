"""Files of JSON lines for `agentflow batch`: what is asked, a line each, and what became of it.

"Summarise: …"                                         a prompt
{"prompt": "…", "system": "…", "max_tokens": 100}      a prompt, and how it is to be answered
{"messages": [{"role": "user", "content": "…"}]}       a conversation

{"index": 0, "text": "…", "error": null, "via": "batch", "cost": 0.0001, …}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from agentflow.errors import InputError, describe
from agentflow.llm.messages import Message, Request
from agentflow.mcp.performance.batching.jobs.asking import Asked
from agentflow.mcp.performance.batching.jobs.result import BatchResult

__all__ = ["read_lines", "result_line"]

_NUMBERS = ("temperature", "top_p", "max_tokens", "top_k", "seed")
_FIELDS = {"prompt", "messages", "system", "stop", *_NUMBERS}


def read_lines(lines: Iterable[str], name: str) -> Iterator[Asked]:
    """What each line asks; blank ones ask nothing. Raises InputError, which names the line."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _asked(line, f"{name}:{number}")


def _asked(line: str, where: str) -> Asked:
    try:
        told = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: this is no JSON: {error}") from error
    if isinstance(told, str):
        return told
    if not isinstance(told, Mapping) or ("prompt" in told) == ("messages" in told):
        raise InputError(f'{where}: a line is a text, {{"prompt": …}} or {{"messages": […]}}')
    if unknown := sorted(set(told) - _FIELDS):
        raise InputError(f"{where}: there is no {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    numbers = {each: told[each] for each in _NUMBERS if each in told}
    if wrong := [
        each for each, value in numbers.items() if isinstance(value, bool) or not isinstance(value, int | float)
    ]:
        raise InputError(f"{where}: {wrong[0]} is a number, not {told[wrong[0]]!r}")
    stop = told.get("stop", [])
    return Request("", tuple(_messages(told, where)), stop=(stop,) if isinstance(stop, str) else tuple(stop), **numbers)


def _messages(told: Mapping[str, object], where: str) -> Iterator[Message]:
    if "system" in told:
        yield Message("system", _text(told["system"], where))
    if "prompt" in told:
        yield Message("user", _text(told["prompt"], where))
        return
    turns = told["messages"]
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{where}: messages is a list of turns")
    for turn in turns:
        if not isinstance(turn, Mapping) or turn.keys() != {"role", "content"}:
            raise InputError(f'{where}: a turn is {{"role": …, "content": …}}')
        yield Message(_text(turn["role"], where), _text(turn["content"], where))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {value!r} should be a text")
    return value


def result_line(result: BatchResult) -> str:
    """One line of results."""
    response = result.response
    usage = None if response is None else response.usage
    told = {
        "index": result.index,
        "text": None if response is None else response.text,
        "error": None if result.error is None else describe(result.error),
        "error_type": None if result.error is None else type(result.error).__name__,
        "via": result.via,
        "attempts": result.attempts,
        "cost": result.cost,
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "finish_reason": None if response is None else response.finish_reason,
    }
    if result.at_risk or result.billed_twice:
        told |= {"at_risk": result.at_risk, "billed_twice": result.billed_twice}
    return json.dumps(told, ensure_ascii=False)
