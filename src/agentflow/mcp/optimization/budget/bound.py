"""What a call may cost at most: no estimate, but a number that it cannot exceed.

    input     a byte of UTF-8 is never more than a token; a picture or a document may fill the model's context
    output    max_tokens, else the model's max_output, else its context; times `n`
    rates     the dearest that may apply: prompt caches, long prompts, sound, a change of price in the next minutes
                    ──▶  US dollars, times the requests that one call may be billed for (hedges, restarted streams)

That a token has at least one byte holds for tokenizers that work on bytes, as those of all large providers do. Where no
such number can be had (no known price, nothing that bounds the answer, tools that the provider runs and bills by
itself), it is an UnboundedCostError that says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import to_builtins
from msgspec.structs import replace

from agentflow.errors import UnboundedCostError
from agentflow.llm.config.prices import Price, Rates
from agentflow.llm.content import Audio, Json, Media, Part, Raw, Reasoning, Text, ToolCall, ToolResult, parts_of
from agentflow.llm.messages import EmbeddingRequest, Message, Request, Tool
from agentflow.mcp.optimization.budget.money import charged

__all__ = ["Tariff", "most"]

_PER_REQUEST: Final = 128  # tokens that a provider may put around a prompt
_PER_TURN: Final = 16  # role and separators
_PER_TOOL: Final = 64
_WITH_TOOLS: Final = 1_024  # the instructions that come with any tool, and with a schema for the answer
_MILLION: Final = 1_000_000
_SAID_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")
_NESTED: Final = ("generationConfig", "generation_config")
_REFERENCES: Final = ("previous_response_id", "conversation", "prompt", "cachedContent", "cached_content", "container")
_USUAL_TIERS: Final = ("", "auto", "default", "standard", "standard_only", "on_demand")


@dataclass(frozen=True, slots=True)
class Tariff:
    """What bounds the cost of a model's calls. `prices` are those that hold now and in the next minutes; `max_tokens`
    is what its entry in models.yml says, `max_output` and `context` are the model's own limits in tokens. `requests`
    is how many one call may be billed for; `media_tokens` what a picture or a document may have, where that is known
    to be less than the context. `params` are laid under those of the request."""

    model: str
    prices: Sequence[Price] = ()
    max_tokens: int | None = None
    max_output: int | None = None
    context: int | None = None
    requests: int = 1
    media_tokens: int | None = None
    params: Mapping[str, Json] = field(default_factory=dict)


def most(request: Request | EmbeddingRequest, tariff: Tariff) -> int:
    """1e-9 US dollars. Raises UnboundedCostError."""
    if tariff.params:
        request = replace(request, params={**tariff.params, **request.params})
    tokens = _input(request, tariff)
    if isinstance(request, EmbeddingRequest):
        rates = _dearest(request.params, tariff, tokens)
        return tariff.requests * charged(tokens * _input_rate(rates, tariff, sound=False) / _MILLION)
    answer = _output(request, tariff)
    rates = _dearest(request.params, tariff, tokens)
    sound = any(isinstance(part, Audio) for message in request.messages for part in message.parts)
    cost = tokens * _input_rate(rates, tariff, sound=sound) + answer * _output_rate(rates, tariff)
    return tariff.requests * charged(cost / _MILLION)


# ---- tokens --------------------------------------------------------------------------------------------------


def _input(request: Request | EmbeddingRequest, tariff: Tariff) -> int:
    if isinstance(request, EmbeddingRequest):
        counts = [_PER_TURN + _bytes(text) for text in request.inputs]  # each has the context to itself
        return sum(counts) if tariff.context is None else sum(min(count, tariff.context) for count in counts)
    _refuse_own_tools(request, tariff)
    known = _prompt(request, tariff.media_tokens)
    if known is not None:
        return known if tariff.context is None else min(known, tariff.context)
    if tariff.context is None:
        raise UnboundedCostError(
            tariff.model,
            "nobody knows how many tokens a picture, a document or something that the provider keeps has",
            "state its context in models.yml, media_tokens or a ceiling under budget, or use mode: soft",
        )
    return tariff.context


def _prompt(request: Request, media: int | None) -> int | None:
    """Tokens at most; None where something is in it that has no bytes of its own here."""
    if any(name in request.params for name in _REFERENCES):
        return None
    total = _PER_REQUEST + (_bytes(_json(request.params)) if request.params else 0)
    for message in request.messages:
        found = _turn(message, media)
        if found is None:
            return None
        total += found
    tools = [tool for tool in request.tools if isinstance(tool, Tool)]
    total += sum(_PER_TOOL + _bytes(_json(to_builtins(tool))) for tool in tools)
    if request.output is not None:
        total += _PER_TOOL + _bytes(_json(to_builtins(request.output)))
    return total + (_WITH_TOOLS if tools or request.output is not None else 0)


def _turn(message: Message, media: int | None) -> int | None:
    if isinstance(message.content, str) and not message.opaque:
        return _PER_TURN + len(message.role) + _bytes(message.name or "") + _bytes(message.content)
    counts = [_part(part, media) for part in message.parts]
    total = _PER_TURN + len(message.role) + _bytes(message.name or "") + _opaque(message.opaque)
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _part(part: Part, media: int | None) -> int | None:
    match part:
        case Text(text=text):
            return _bytes(text) + _opaque(part.opaque)
        case Reasoning(text=text):
            return _PER_TURN + _bytes(text) + _opaque(part.opaque)
        case ToolCall():
            return _PER_TOOL + _bytes(part.id) + _bytes(part.name) + _bytes(part.json) + _opaque(part.opaque)
        case ToolResult():
            inner = [_part(each, media) for each in parts_of(part.content)]
            return None if None in inner else _PER_TOOL + sum(filter(None, inner)) + _opaque(part.opaque)
        case Media():
            return media
    return None  # Raw: what it stands for may be anywhere


def _output(request: Request, tariff: Tariff) -> int:
    said = [request.max_tokens, *_said_limits(request.params)]
    limit = max((each for each in said if each is not None), default=tariff.max_tokens)
    if limit is None:
        limit = tariff.max_output if tariff.max_output is not None else tariff.context
    if limit is None:
        raise UnboundedCostError(
            tariff.model,
            "nothing bounds the length of its answer",
            "set max_tokens for the call or in models.yml, or state the model's max_output there",
        )
    return limit * (request.n or 1)


def _said_limits(params: Mapping[str, Json]) -> Iterable[int | None]:
    for name in _SAID_LIMITS:
        value = params.get(name)
        if isinstance(value, int):
            yield value
    for name in _NESTED:
        inner = params.get(name)
        if isinstance(inner, Mapping):
            yield from _said_limits(inner)


def _refuse_own_tools(request: Request, tariff: Tariff) -> None:
    if any(isinstance(tool, Raw) for tool in request.tools) or "tools" in request.params:
        raise UnboundedCostError(
            tariff.model,
            "it may use tools that the provider runs, and bills beside the tokens",
            "name a ceiling under budget, or use mode: soft",
        )


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _json(value: object) -> str:
    return json.dumps(value, default=str)


def _opaque(opaque: Mapping[str, Json]) -> int:
    return _bytes(_json(opaque)) if opaque else 0


# ---- rates ---------------------------------------------------------------------------------------------------


def _dearest(params: Mapping[str, Json], tariff: Tariff, tokens: int) -> list[Rates]:
    """All rates that may apply to a prompt of at most so many tokens."""
    said = str(params.get("service_tier") or "").lower()
    tiers = [""] if said in _USUAL_TIERS else ["", said]  # one that was asked for is not always given
    found: list[Rates] = []
    for price in tariff.prices:
        for tier in tiers:
            steps = price.rates.get(tier)
            if not steps:
                raise _unknown_price(tariff, f"in the service tier {tier!r}" if tier else "")
            for above, rates in steps:
                if above and tokens <= above:
                    continue
                if rates is None:
                    raise _unknown_price(tariff, f"above {above:,} tokens")
                found.append(rates)
    if not found:
        raise _unknown_price(tariff, "")
    return found


def _input_rate(rates: Sequence[Rates], tariff: Tariff, *, sound: bool) -> float:
    if sound and any(each.input_audio is None for each in rates):
        raise _unknown_price(tariff, "for sound")
    return max(
        rate
        for each in rates
        for rate in (
            each.input,
            each.cached,
            each.cache_write,
            each.cache_write_1h,
            each.input_audio if sound else None,
        )
        if rate is not None
    )


def _text_rates(rates: Rates) -> tuple[float | None, ...]:
    return rates.input, rates.cached, rates.cache_write, rates.cache_write_1h


def _output_rate(rates: Sequence[Rates], tariff: Tariff) -> float:
    if any(each.output is None for each in rates):
        raise _unknown_price(tariff, "for what it writes")
    return max(rate for each in rates for rate in (each.output, each.output_audio) if rate is not None)


def _unknown_price(tariff: Tariff, where: str) -> UnboundedCostError:
    return UnboundedCostError(
        tariff.model,
        f"no price of it is known {where}".rstrip(),
        "state its price in models.yml, name a ceiling under budget, or use mode: soft",
    )
