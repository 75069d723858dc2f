"""What a provider's error means, by its status, its code and its type, and never by its words."""

from __future__ import annotations

import json
import pickle
from typing import Any
from urllib.parse import quote

import pytest

from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    ModelError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
)
from agentflow.llm.providers.base import Secret
from agentflow.llm.providers.failures import Source, read_error, wire_error, without_key
from agentflow.llm.providers.http import Answer

SOURCE = Source("lab", "m")
KEY = Secret("sk/SECRET+0123456789=")


def answered(status: int, body: Any, **headers: str) -> ModelError:
    """The error that an answer with this status and body is."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_error(Answer(status, fields, json.dumps(body).encode()), SOURCE)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"code": "429", "message": "slow down"}, RateLimitError, 429),
        ({"code": 503, "message": "busy"}, OverloadedError, 503),
        ({"code": "500", "message": "Internal Error"}, ServerError, 500),
        ({"status_code": 401, "message": "who?"}, AuthenticationError, 401),
        ({"status_code": "404"}, NotFoundError, 404),
        ({"status": 403, "title": "Forbidden"}, PermissionDeniedError, 403),
        ({"code": None, "raw_status_code": 429}, RateLimitError, 429),
        ({"code": "1001", "message": "no header"}, AuthenticationError, 200),
        ({"code": 200, "message": "?"}, ModelError, 200),
        ({"code": True, "message": "?"}, ModelError, 200),
        ({"code": "1" * 5000, "message": "?"}, ModelError, 200),
    ],
)
def test_a_status_that_an_error_names_counts_however_it_is_written(error: Any, kind: type[ModelError], status: int):
    """In an answer with status 200 it is all that tells what happened."""
    found = wire_error(error, SOURCE)
    assert type(found) is kind
    assert found.status == status


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("1113", QuotaExceededError),
        ("1211", NotFoundError),
        ("1261", ContextLengthError),
        ("1301", ContentFilterError),
        ("1302", RateLimitError),
        ("1303", RateLimitError),
        ("1304", QuotaExceededError),
        ("1305", OverloadedError),
        ("1308", QuotaExceededError),
        ("1310", QuotaExceededError),
        ("1313", PermissionDeniedError),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 429])
def test_zais_numbers_say_more_than_the_status(code: str, kind: type[ModelError], status: int):
    """Its status 429 stands for a moment's haste, for an empty account, and for a locked one."""
    assert type(answered(status, {"error": {"code": code, "message": "…"}})) is kind


def test_a_flat_error_of_mistral_is_read():
    """It has no envelope, and its code is a number of its own."""
    body = {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"}
    assert type(wire_error(body | {"raw_status_code": 429}, SOURCE)) is RateLimitError


def test_groqs_flex_tier_without_room_is_overloaded():
    """Its status is its own, and the same call may succeed soon."""
    assert type(answered(498, {"error": {"message": "Flex tier", "type": "?"}})) is OverloadedError
    assert type(wire_error({"message": "no room", "code": "capacity_exceeded"}, SOURCE)) is OverloadedError
    assert answered(498, {}).retryable


@pytest.mark.parametrize("raw", ['{"error":"max_tokens is too large"}', {"error": "max_tokens is too large"}])
def test_what_the_provider_behind_openrouter_said_is_quoted(raw: Any):
    """Without it a user reads "Provider returned error", and no more."""
    error = {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw, "provider_name": "Azure"}}
    found = answered(400, {"error": error})
    assert type(found) is BadRequestError
    assert found.message.startswith("Provider returned error: ")
    assert "max_tokens is too large" in found.message


def test_a_prompt_that_openrouter_flagged_is_filtered():
    """Its status is that of a key which may not do something."""
    error = {"message": "flagged", "code": 403, "metadata": {"reasons": ["violence"], "flagged_input": "…"}}
    assert type(answered(403, {"error": error})) is ContentFilterError
    assert type(answered(403, {"error": {"message": "no", "code": 403, "metadata": {}}})) is PermissionDeniedError


def test_openrouters_own_word_for_an_error_decides():
    """It stands in the metadata, beside a status that says less."""
    error = {"message": "too long", "code": 400, "metadata": {"error_type": "context_length_exceeded"}}
    assert type(answered(400, {"error": error})) is ContextLengthError


@pytest.mark.parametrize(
    ("status", "wish", "retryable"),
    [(429, "false", False), (500, "false", False), (400, "true", True), (429, "perhaps", True), (400, "", False)],
)
def test_a_server_may_say_whether_to_try_again(status: int, wish: str, retryable: bool):
    """`x-should-retry` wins over what the status means, as in the official clients, and travels with the error."""
    found = answered(status, {"error": {"message": "no"}}, x_should_retry=wish)
    assert found.retryable is retryable
    assert pickle.loads(pickle.dumps(found)).retryable is retryable


def test_a_key_is_masked_also_as_an_address_holds_it():
    """An error may quote the address that was asked, with the key in its query."""
    secret = KEY.reveal()
    forms = [secret, quote(secret, safe=""), quote(secret), quote(secret, safe="").replace("%2F", "%2f")]
    for form in forms:
        assert without_key(f"a {form} b%20{form}{form}", KEY) == "a … b%20……"
        assert without_key(f"50% of {form[:14]}", KEY) == "50% of …"
        assert without_key(form, Secret("short")) == form
    assert without_key("100% of nothing", KEY) == "100% of nothing"


def test_an_error_that_is_nested_too_deeply_is_still_one():
    """What can be read may be too deep to be written again."""
    deep: Any = "x"
    for _ in range(3000):
        deep = [deep]
    assert type(wire_error({"message": deep, "code": 429}, SOURCE)) is RateLimitError
    assert type(wire_error({"oops": deep}, SOURCE)) is ModelError


def test_what_a_terminal_would_obey_is_taken_out_of_a_message():
    found = read_error(
        Answer(400, {}, b'{"error": {"message": "a\\u0007b\\u001b]0;title\\u0007c\\u009b31m\\u0000"}}'), SOURCE
    )
    assert "a b ]0;title c 31m" in str(found)


# ---- when to come back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1m6.5s"}, 66.5),
        ({"retry-after": "12ms"}, 0.012),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "6m0s"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "2m",
            },
            120.0,
        ),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, None),
        (
            {
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2026-09-21T14:14:05Z",
                "date": "Mon, 21 Sep 2026 14:13:35 GMT",
            },
            30.0,
        ),
        ({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "soon"}, None),
        ({"retry-after": "3", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 3.0),
    ],
)
def test_a_limit_that_is_used_up_says_when_it_is_free_again(headers: dict[str, str], seconds: float | None) -> None:
    """What the server says of retrying comes first; else the limits of which nothing is left do, the latest of them."""
    error = read_error(Answer(429, headers, b'{"error": {"message": "slow down"}}'), Source("lab", "m"))
    assert error.retry_after == (None if seconds is None else pytest.approx(seconds))


def test_other_failures_do_not_wait_for_a_limit() -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}
    error = read_error(Answer(500, headers, b"{}"), Source("lab", "m"))
    assert error.retry_after is None
