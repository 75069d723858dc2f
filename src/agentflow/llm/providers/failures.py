"""What a provider's error means: one table from status, code and type to our errors, shared by the adapters.

    Answer(429, {"error": {"code": "insufficient_quota", …}})  ──read_error──▶  QuotaExceededError(retry_after=…)

The code decides, else the status, else the type; never the text. Every text that is quoted from outside is freed of
the key and cut short first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from agentflow.core.robustness.retry_after import duration, retry_after, seconds_until
from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    ModelError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from agentflow.llm.providers.base import Secret
from agentflow.llm.providers.http import Answer
from agentflow.llm.providers.lenient import mapping, mappings, number, text

__all__ = [
    "EXCERPT",
    "Source",
    "no_answer",
    "read_error",
    "too_deep",
    "wire_error",
    "without_key",
]

EXCERPT = 200  # characters of a foreign body that an error may quote
_MESSAGE = 600  # characters of a provider's own error message
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")  # a terminal would obey them
_SHORTEST_KEY = 8  # what is shorter may be a word, such as the "ollama" that stands for no key


class Source(Struct, frozen=True):
    """What a response or an error says of where it comes from. `key` is taken out of every quoted text."""

    provider: str
    model: str
    request_id: str | None = None
    key: Secret | None = None

    def quote(self, words: str, limit: int) -> str:
        """Foreign text on one line, cut to `limit` characters, without the key."""
        words = " ".join(without_key(words, self.key).translate(_CONTROLS).split())
        return words if len(words) <= limit else words[: limit - 1] + "…"


def without_key(quoted: str, key: Secret | None) -> str:
    """`quoted` without the key, plain or as an address holds it, and without the part that a cut text ends with."""
    secret = key.reveal() if key else ""
    pieces: Sequence[str] = quoted
    plain = quoted
    if "%" in quoted:
        pieces = _PIECE.findall(quoted)
        plain = "".join([chr(int(piece[1:], 16)) if len(piece) == 3 else piece for piece in pieces])
    if len(secret) < _SHORTEST_KEY or secret[:_SHORTEST_KEY] not in plain:
        return quoted
    kept: list[str] = []
    at = 0
    while (start := plain.find(secret, at)) >= 0:
        kept += [*pieces[at:start], "…"]
        at = start + len(secret)
    rest = next((n for n in range(len(secret) - 1, _SHORTEST_KEY - 1, -1) if plain.endswith(secret[:n])), 0)
    return "".join([*kept, *pieces[at : len(plain) - rest], "…" if rest else ""])


_PIECE: Final = re.compile("%[0-9a-fA-F]{2}|.", re.DOTALL)


# `error.code` and `error.type`, of OpenAI, Azure, Moonshot and other compatible servers.
_BY_CODE: dict[str, type[ModelError]] = {
    "insufficient_quota": QuotaExceededError,
    "exceeded_current_quota_error": QuotaExceededError,
    "billing_hard_limit_reached": QuotaExceededError,
    "billing_not_active": QuotaExceededError,
    "quota_exceeded": QuotaExceededError,
    "billing_error": QuotaExceededError,  # Anthropic, and its `error_code`s where waiting does not help
    "enforced_spend_limit_reached": QuotaExceededError,
    "contract_spend_limit_reached": QuotaExceededError,
    "linked_organization_spend_limit_reached": QuotaExceededError,
    "linked_organization_billing_unavailable": QuotaExceededError,
    "rate_limit_exceeded": RateLimitError,
    "rate_limit_error": RateLimitError,
    "rate_limit_reached_error": RateLimitError,
    "engine_overloaded_error": OverloadedError,
    "overloaded_error": OverloadedError,
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,  # llama.cpp
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "invalid_prompt": ContentFilterError,  # OpenAI's word for a prompt that it flagged, and its policies by name
    "image_content_policy_violation": ContentFilterError,
    "misalignment_policy_violation": ContentFilterError,
    "bio_policy": ContentFilterError,
    "invalid_api_key": AuthenticationError,
    "invalid_authentication_error": AuthenticationError,
    "incorrect_api_key_error": AuthenticationError,
    "authentication_error": AuthenticationError,
    "permission_denied_error": PermissionDeniedError,
    "permission_error": PermissionDeniedError,
    "model_not_found": NotFoundError,
    "resource_not_found_error": NotFoundError,
    "not_found_error": NotFoundError,
    "capacity_exceeded": OverloadedError,  # Groq's flex tier, with status 498
    "rate_limited": RateLimitError,  # Mistral
}

# Z.ai's numbers (docs.z.ai/api-reference/api-code, and what users report of its coding plan). Half of them come with
# status 429, and some inside a good answer.
_BY_CODE |= {
    **dict.fromkeys(("1000", "1001", "1002", "1003", "1004"), AuthenticationError),
    **dict.fromkeys(("1110", "1111", "1112", "1121", "1220", "1313"), PermissionDeniedError),  # 1313: against fair use
    **dict.fromkeys(("1211", "1221", "1222"), NotFoundError),
    **dict.fromkeys(("1120", "1230", "1234"), ServerError),
    "1261": ContextLengthError,
    "1301": ContentFilterError,
    **dict.fromkeys(("1302", "1303"), RateLimitError),  # at once, and in a minute
    "1305": OverloadedError,  # the model, and not the account, has too much to do
    # In arrears, and what comes back only after hours, a day, a week, or with another plan.
    **dict.fromkeys(("1113", "1304", "1308", "1309", "1310", "1311"), QuotaExceededError),
    **dict.fromkeys(("1316", "1317", "1318", "1319", "1320", "1321"), QuotaExceededError),
}

# What OpenRouter calls an error in its `metadata.error_type`, beside words that others have, too.
_BY_CODE |= {
    "authentication": AuthenticationError,
    "permission_denied": PermissionDeniedError,
    "payment_required": QuotaExceededError,
    "not_found": NotFoundError,
    "refusal": ContentFilterError,
    "provider_overloaded": OverloadedError,
    "provider_unavailable": OverloadedError,
}

# `error.status` of Google's APIs, and the reasons that its `details` give, which say more.
_BY_CODE |= {
    "UNAUTHENTICATED": AuthenticationError,
    "API_KEY_INVALID": AuthenticationError,  # with status 400
    "PERMISSION_DENIED": PermissionDeniedError,
    "NOT_FOUND": NotFoundError,
    "INVALID_ARGUMENT": BadRequestError,
    "FAILED_PRECONDITION": BadRequestError,
    "OUT_OF_RANGE": BadRequestError,
    "RESOURCE_EXHAUSTED": RateLimitError,
    "BILLING_DISABLED": QuotaExceededError,
    "UNAVAILABLE": OverloadedError,
    "DEADLINE_EXCEEDED": ServerError,
    "INTERNAL": ServerError,
    "UNKNOWN": ServerError,
    "ABORTED": ServerError,
    "CANCELLED": ServerError,  # 499: the server gave up on it
}

_BY_STATUS: dict[int, type[ModelError]] = {
    401: AuthenticationError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ServerError,  # retried, as the official client does, and so is 409
    409: ServerError,
    429: RateLimitError,
    498: OverloadedError,  # Groq's
    503: OverloadedError,
    529: OverloadedError,
}

# For errors inside a stream, whose status was 200.
_BY_TYPE: dict[str, type[ModelError]] = {
    "invalid_request_error": BadRequestError,
    "request_too_large": BadRequestError,
    "server_error": ServerError,
    "internal_server_error": ServerError,
    "internal_error": ServerError,
    "api_error": ServerError,
    "unexpected_output": ServerError,
    "timeout_error": ServerError,
    "conflict_error": ServerError,
    "vector_store_timeout": ServerError,  # of an OpenAI response that failed, as are the images it could not read
    "data_residency_mismatch": BadRequestError,
    "invalid_image": BadRequestError,
    "invalid_image_format": BadRequestError,
    "invalid_base64_image": BadRequestError,
    "invalid_image_url": BadRequestError,
    "invalid_image_mode": BadRequestError,
    "image_too_large": BadRequestError,
    "image_too_small": BadRequestError,
    "image_parse_error": BadRequestError,
    "image_file_too_large": BadRequestError,
    "unsupported_image_media_type": BadRequestError,
    "empty_image_file": BadRequestError,
    "failed_to_download_image": BadRequestError,
    "image_file_not_found": BadRequestError,
}

_NO_HEADERS: Mapping[str, str] = {}

_REMEDY: dict[type[ModelError], str] = {
    AuthenticationError: "check the provider's API key",
    PermissionDeniedError: "this key may not do that",
    NotFoundError: "check the model id and base_url",
    ContextLengthError: "shorten the prompt, or ask for fewer tokens",
    ContentFilterError: "the provider blocked it; change the prompt",
    RateLimitError: "slow down, or wait",
    QuotaExceededError: "the account has no quota or money left; waiting does not help",
    OverloadedError: "try again later",
    ServerError: "try again later",
}


def read_error(answer: Answer, source: Source) -> ModelError:
    """The error that an answer with another status than 200 stands for."""
    if 300 <= answer.status < 400:
        return _failure(
            ProtocolError,
            "the server redirects, which is not followed: set base_url to the final address",
            source,
            answer,
        )
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, ValueError, RecursionError):  # as in `decoded`
        excerpt = _excerpt(answer.body, source)
        return _failure(_by_status(answer.status), f"the server says: {excerpt}", source, answer)
    return wire_error(_envelope(body), source, status=answer.status, headers=answer.headers)


def _envelope(body: object) -> object:
    """The error inside a body: under `error` (OpenAI), `detail` (FastAPI), or the body itself (vLLM). Google's streams
    put it into a list."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return body
    return body.get("error") or body.get("detail") or body


def wire_error(
    error: object, source: Source, *, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS
) -> ModelError:
    """An error object as an error of ours; with status 200 it came inside an answer that had begun well."""
    fields = error if isinstance(error, dict) else {"message": error}
    code, kind, status = _code(fields), text(fields.get("type")), _status(fields, status)
    found = _BY_CODE.get(code) or _BY_CODE.get(kind) or _by_details(fields) or _by_metadata(fields, status)
    if found is None:
        found = _by_status(status) if status >= 400 else _BY_TYPE.get(code) or _BY_TYPE.get(kind, ModelError)
    answer = Answer(status, headers, b"")
    name = source.quote(code or kind or text(fields.get("status")), EXCERPT) or None
    return _failure(found, source.quote(_message(fields), _MESSAGE), source, answer, name, _retry_delay(fields))


def _code(fields: Mapping[str, object]) -> str:
    """The error's code where it is a word, which Anthropic puts into `details`."""
    return text(mapping(fields.get("details")).get("error_code")) or text(fields.get("code"))


_STATUSES: Final = ("code", "status_code", "raw_status_code", "status")


def _status(fields: Mapping[str, object], status: int) -> int:
    """The status that an error names itself, as a number or as its digits; else that of its answer."""
    named = [found for name in _STATUSES if (found := number(fields.get(name))) is not None and 400 <= found < 600]
    return int(named[0]) if named else status


def _message(fields: Mapping[str, object]) -> str:
    """What the error says, and what the provider behind OpenRouter said, which it only hands on."""
    message, raw = fields.get("message"), mapping(fields.get("metadata")).get("raw")
    if not message:
        return _written(fields)
    return f"{_written(message)}: {_written(raw)}" if raw else _written(message)


def _written(value: object) -> str:
    try:
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except RecursionError:
        return "it is nested too deeply to be quoted"


def _by_details(fields: Mapping[str, object]) -> type[ModelError] | None:
    """What Google's `details` and `status` say: a quota for the day does not come back within minutes."""
    details = mappings(fields.get("details"))
    quotas = [quota for detail in details for quota in mappings(detail.get("violations"))]
    if any("PerDay" in text(quota.get("quotaId")) for quota in quotas):
        return QuotaExceededError
    words = [text(detail.get("reason")) for detail in details] + [text(fields.get("status"))]
    return next((_BY_CODE[word] for word in words if word in _BY_CODE), None)


def _by_metadata(fields: Mapping[str, object], status: int) -> type[ModelError] | None:
    """What OpenRouter says beside: its own word for the error, or the reasons why it let a prompt not pass."""
    metadata = mapping(fields.get("metadata"))
    if metadata.get("reasons") and status == 403:
        return ContentFilterError
    return _BY_CODE.get(text(metadata.get("error_type")))


def _retry_delay(fields: Mapping[str, object]) -> float | None:
    """Google's RetryInfo, which stands in the body and in no header."""
    delays = [duration(text(detail.get("retryDelay"))) for detail in mappings(fields.get("details"))]
    return next((delay for delay in delays if delay is not None), None)


def _by_status(status: int) -> type[ModelError]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ServerError if status >= 500 else BadRequestError


def _failure(
    kind: type[ModelError],
    message: str,
    source: Source,
    answer: Answer,
    code: str | None = None,
    delay: float | None = None,
) -> ModelError:
    """`delay` is what the body says of when to try again; a header says it first. Another says whether to."""
    remedy = _REMEDY.get(kind)
    now = time.time()
    told = retry_after(answer.headers, now=now)
    if told is None and delay is None and answer.status == 429:
        told = _free_again(answer.headers, now)
    failure = kind(
        f"{message.rstrip('.')}; {remedy}" if remedy else message,
        provider=source.provider,
        model=source.model,
        status=answer.status,
        code=code,
        request_id=source.request_id,
        retry_after=delay if told is None else told,
    )
    wish = _SHOULD_RETRY.get(answer.headers.get("x-should-retry", ""))
    if wish is not None:
        failure.retryable = wish
    return failure


_SHOULD_RETRY: Final = {"true": True, "false": False}


def no_answer(reason: str, body: bytes, source: Source) -> ProtocolError:
    """An answer with status 200 that is not what the API promises."""
    return ProtocolError(
        f"the answer is not what the API promises ({reason}); is base_url right? It begins: {_excerpt(body, source)}",
        provider=source.provider,
        model=source.model,
        request_id=source.request_id,
    )


def too_deep(body: bytes | str, source: Source) -> ProtocolError:
    """An answer that could be decoded, but is nested too deeply for what is to be made of it."""
    return no_answer(
        "it is nested too deeply", body.encode("utf-8", "replace") if isinstance(body, str) else body, source
    )


def _excerpt(body: bytes, source: Source) -> str:
    return source.quote(body[: 16 * EXCERPT].decode("utf-8", "replace"), EXCERPT) or "an empty body"


# What is left of a limit, and when it is free again: OpenAI's and those who follow it say a duration, Anthropic a time.
_LIMITS: Final = (
    *((f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}") for what in ("requests", "tokens")),
    *(
        (f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-reset")
        for what in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)


def _free_again(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until every limit of which nothing is left is free again."""
    used_up = [reset for remaining, reset in _LIMITS if headers.get(remaining) == "0"]
    found = [seconds_until(headers.get(reset, ""), headers, now) for reset in used_up]
    return max([seconds for seconds in found if seconds is not None], default=None)
