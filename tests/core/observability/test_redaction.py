"""What is taken out of texts and values before they are written down, and what is left alone."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.observability.redaction.known_secrets import KnownSecrets
from agentflow.core.observability.redaction.personal_data import is_card
from agentflow.core.observability.redaction.redactor import Redactor, redact
from agentflow.errors import ConfigurationError

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"
KEYS = {
    "sk-proj-4f9aTq83mLw0Zx71bN5c": "key",
    "sk-ant-api03-Kd83jfLs92mfKs-0_aa": "key",
    "sk_live_51H8kjsdf93kdjfsK": "key",
    "gsk_9fKd83jfLs92mfKs0aa1": "key",
    "xai-9fKd83jfLs92mfKs0aa1": "key",
    "hf_QwErTyUiOpAsDfGhJkLz": "key",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv": "google",
    "ya29.a0AfH6SMBx1234567890abcd": "google",
    "AKIAIOSFODNN7EXAMPLE": "aws",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a": "github",
    "github_pat_11ABCDEFG0123456789_abcdefghij": "github",
    "xoxb-2345678901-abcdefghijk": "slack",
    "SG.aaaaaaaaaaaaaaaa1.bbbbbbbbbbbbbbbbb2": "sendgrid",
    JWT: "jwt",
    PEM: "pem",
}


# ---- keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "kind"), KEYS.items())
@pytest.mark.parametrize(
    "around", ["{}", "Wrong key: {}.", '{{"a": "{}"}}', "x\\n{}\\n", "?q=%20{}&b=1", "<{}>", "a\n{}"]
)
def test_a_key_of_a_known_shape_is_replaced_by_its_kind_wherever_it_stands(key: str, kind: str, around: str) -> None:
    cleaned = redact(around.format(key))
    assert cleaned == around.format(f"[redacted:{kind}]")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Authorization: Bearer abc123def456", "Authorization: Bearer [redacted:bearer]"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic [redacted:secret]"),
        ("api_key=Zx81mQ0pLk", "api_key=[redacted:secret]"),
        ("OPENAI_API_KEY='Zx81mQ0p Lk'", "OPENAI_API_KEY='[redacted:secret]'"),
        ('{"x-api-key": "Zx81mQ0pLk"}', '{"x-api-key": "[redacted:secret]"}'),
        ('{\\"client_secret\\": \\"Zx81mQ0pLk\\", 1}', '{\\"client_secret\\": \\"[redacted:secret]\\", 1}'),
        ("Incorrect API key provided: Zx81mQ0pLk.", "Incorrect API key provided: [redacted:secret]"),
        ("password = hunter2; next", "password = [redacted:secret]; next"),
        ('password: "correct horse: battery, staple"', 'password: "[redacted:secret]"'),
        ("token=api_key=Zx81mQ0pLk", "token=api_key=[redacted:secret]"),
        ("https://h/v1?key=Zx81mQ0pLkAb47cRt2&b=2", "https://h/v1?key=[redacted:secret]&b=2"),
        ("postgres://ada:pa55:word@db:5432/x", "postgres://ada:[redacted:password]@db:5432/x"),
        (PEM[:50], "[redacted:pem]"),
    ],
)
def test_what_stands_after_a_name_of_a_secret_is_replaced(text: str, cleaned: str) -> None:
    assert redact(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The monkey: a keyboard token of gratitude. Bearer of bad news, secret gardens, password required",
        "max_tokens=4096 input_tokens: 128 token: none key=3",
        "a task-1234567890123456 and risk-aware-scheduling-of-things",
        "hf_hub_download_with_a_retry sk-learn-pipelines-of-many",
        "password: None, api_key: ***, token=get_token()",
        "gpt-4o-mini claude-sonnet-4-5 kimi-k2.6 3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "http://localhost:8080/v1/chat?x=1",
        "1700000000000 1700000000000000000 2026-11-30T12:00:00",
    ],
)
def test_plain_text_is_left_as_it_is(text: str) -> None:
    assert redact(text) == text


# ---- people --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("write to ada@example.org, please", "write to [redacted:email], please"),
        ("<ada.l+x@mail.example.co.uk>", "<[redacted:email]>"),
        ("söphie@exämple.de", "[redacted:email]"),
        ("a@b.co,c@d.org", "[redacted:email],[redacted:email]"),
        ("root@localhost, @handle, 3 @ 4.5", "root@localhost, @handle, 3 @ 4.5"),
    ],
)
def test_email_addresses_are_replaced(text: str, cleaned: str) -> None:
    assert redact(text) == cleaned


@pytest.mark.parametrize(
    "card",
    "4111111111111111,4111 1111 1111 1111,5500-0000-0000-0004,340000000000009,6011000000000004,3530111333300000,"
    "30569309025904,4222222222222,2223003122003222,6759649826438453".split(","),
)
@pytest.mark.parametrize("around", ["{}", "card:{}.", "pay {} 12/29", "{} 123", "17 {}", "x\\n{}\\n"])
def test_card_numbers_are_found_by_issuer_and_check_digit(card: str, around: str) -> None:
    assert redact(around.format(card)) == around.format("[redacted:card]")


@pytest.mark.parametrize(
    "text",
    ["4111111111111112", "1234567890123452", "41111111111111110000", "deadbeef4111111111111111cafe", "4111-1111"],
)
def test_a_number_that_is_no_card_stays(text: str) -> None:
    assert redact(text) == text


@given(st.from_regex(r"4[0-9]{14}", fullmatch=True))
def test_one_of_ten_last_digits_makes_a_card(fifteen: str) -> None:
    assert sum(is_card(f"{fifteen}{last}") for last in range(10)) == 1


# ---- what is known to be secret, and what the user names -----------------------------------------------------


def test_a_known_secret_is_found_whatever_it_looks_like() -> None:
    known = KnownSecrets()
    cleaner = Redactor(secrets=known)
    known.add('plain/words "and" more')
    assert cleaner.redact('<plain/words "and" more>') == "<[redacted:known]>"
    assert cleaner.redact(json.dumps({"a": 'plain/words "and" more'})) == '{"a": "[redacted:known]"}'
    assert cleaner.redact("?a=plain%2Fwords%20%22and%22%20more") == "?a=[redacted:known]"
    assert cleaner.redact("?a=plain%2fwords%20%22and%22%20more") == "?a=[redacted:known]"


def test_what_is_left_of_a_known_secret_at_the_end_of_a_cut_text_goes_too() -> None:
    known = KnownSecrets()
    known.add("abcdefghijklmnop")
    assert Redactor(secrets=known).redact("it is abcdefghijkl") == "it is [redacted:known]"
    assert Redactor(secrets=known).redact("abcdefgh abcdefghijklx") == "abcdefgh abcdefghijklx"


def test_a_text_that_was_clean_is_looked_at_again_once_more_is_known() -> None:
    known = KnownSecrets()
    cleaner = Redactor(secrets=known)
    assert [cleaner.redact("abcdefghijklmnop") for _ in range(2)] == ["abcdefghijklmnop"] * 2
    known.add("abcdefghijklmnop")
    assert cleaner.redact("abcdefghijklmnop") == "[redacted:known]"


def test_a_word_is_no_secret_and_the_oldest_is_forgotten_first() -> None:
    known = KnownSecrets()
    known.add("ollama")
    for number in range(1_001):
        known.add(f"secret-number-{number:04}")
    assert len(known) == 1_000
    cleaner = Redactor(keys=False, secrets=known)
    assert cleaner.redact("ollama secret-number-0000") == "ollama secret-number-0000"
    assert cleaner.redact("secret-number-1000") == "[redacted:known]"


def test_known_secrets_are_neither_printed_nor_pickled() -> None:
    known = KnownSecrets()
    known.add("abcdefghijklmnop")
    assert repr(known) == "<1 known secrets>"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(known)


def test_the_users_patterns_bear_the_users_names() -> None:
    cleaner = Redactor(patterns={"ticket": r"TCK-\d+"})
    assert cleaner.redact("see TCK-17") == "see [redacted:ticket]"


@pytest.mark.parametrize("patterns", [{"a b": "x"}, {"x": "("}, {"": "x"}])
def test_a_pattern_that_cannot_be_used_is_refused_at_once(patterns: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        Redactor(patterns=patterns)


def test_each_sort_can_be_left_alone() -> None:
    text = "sk-proj-4f9aTq83mLw0Zx71bN5c ada@example.org 4111111111111111"
    assert Redactor(keys=False).redact(text) == "sk-proj-4f9aTq83mLw0Zx71bN5c [redacted:email] [redacted:card]"
    assert Redactor(emails=False, cards=False).redact(text) == "[redacted:key] ada@example.org 4111111111111111"


# ---- nested values -------------------------------------------------------------------------------------------


def test_nested_values_are_copied_and_redacted_keys_of_dictionaries_too() -> None:
    given = {
        "a": ["ada@example.org", {"sk-proj-4f9aTq83mLw0Zx71bN5c": (1, 2.5, None, True)}],
        "n": 4111111111111111,
        "m": 1700000000000,
    }
    assert Redactor().redact_json(given) == {
        "a": ["[redacted:email]", {"[redacted:key]": [1, 2.5, None, True]}],
        "n": "[redacted:card]",
        "m": 1700000000000,
    }
    assert given["n"] == 4111111111111111


def test_a_field_with_a_secrets_name_is_redacted_whatever_it_holds() -> None:
    given = {"api_key": "abc", "Authorization": "x", "db-password": "y", "max_tokens": "12", "key": "topic", "pwd": ""}
    assert Redactor().redact_json(given) == {
        "api_key": "[redacted:field]",
        "Authorization": "[redacted:field]",
        "db-password": "[redacted:field]",
        "max_tokens": "12",
        "key": "topic",
        "pwd": "",
    }
    assert Redactor(keys=False).redact_json(given) == given


def test_keys_that_become_one_stay_apart() -> None:
    given = {"a@b.co": 1, "c@d.org": 2, "[redacted:email]#2": 3, "e@f.org": 4}
    assert list(Redactor().redact_json(given).values()) == [1, 2, 3, 4]  # type: ignore[union-attr]


def test_numbers_and_texts_come_back_from_any_reader_of_json() -> None:
    given = {"a": math.nan, "b": [math.inf], "c": 2**53, "d": 2**53 - 1, "e\ud800": "x\udfff", "e?": 1, "f": 10**5000}
    assert Redactor().redact_json(given) == {
        "a": "nan", "b": ["inf"], "c": "9007199254740992", "d": 9007199254740991, "e?": "x?", "e?#2": 1,
        "f": "<integer of 16610 bits>",
    }  # fmt: skip


def test_of_a_long_text_the_beginning_is_kept_and_a_secret_that_is_cut_goes_too() -> None:
    known = KnownSecrets()
    known.add("abcdefghijklmnop")
    cut = Redactor(secrets=known).redact_json({"a": "12345 abcdefghijklmnop", "b": "123"}, longest=16)
    assert cut == {"a": "12345 [redacted:known]… (22 characters)", "b": "123"}


def test_what_contains_itself_ends() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    assert Redactor().redact_json(loop) == [1, "[redacted:depth]"]
    assert "[redacted:depth]" in json.dumps(Redactor().redact_json(deep))


def test_what_json_does_not_know_becomes_text_and_is_redacted() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "Odd(ada@example.org)"

    assert Redactor().redact_json({3: Odd()}) == {"3": "Odd([redacted:email])"}


# ---- for any text --------------------------------------------------------------------------------------------

_ODD = r"api_key= token: password=' Bearer://a: @ [redacted:key] [redacted: ] sk- eyJ 4 - = \n \" . x Ü %20 secret"
_PIECES = st.sampled_from((*KEYS, *_ODD.split(" "), " ", "\n", '"', "4111 1111 1111 1111", "ada@example.org"))
TEXTS = st.lists(_PIECES | st.text(max_size=8), max_size=12).map("".join)


@given(TEXTS)
def test_redacting_again_changes_nothing(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@given(TEXTS)
def test_no_whole_key_is_left(text: str) -> None:
    cleaned = redact(f"{text} sk-proj-Alone0000aloneAlone {text}")
    assert "Alone0000" not in cleaned


@given(TEXTS, st.text('abcdefgh/%"', min_size=8, max_size=20))
def test_a_known_secret_never_comes_out(text: str, secret: str) -> None:
    known = KnownSecrets()
    known.add(secret)
    assert secret not in Redactor(secrets=known).redact(f"{text}{secret}{text}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=12,
    )
)
def test_nested_values_redacted_again_stay_the_same(value: object) -> None:
    once = Redactor().redact_json(value)
    assert Redactor().redact_json(once) == once
    json.dumps(once)


# ---- how long it takes, counted and not timed ----------------------------------------------------------------


def _steps(work: Callable[[], object]) -> int:
    """Lines of Python that were run. What the `re` module does in between is bounded by the matches it hands out."""
    import sys

    count = 0

    def trace(*_: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


ADVERSARIAL = [
    *("sk-", "eyJ", "eyJa-", "a@", "@", "a.", "a-", "4 ", "41-", "4111111111111111 ", "token=", "api_key: ", "://"),
    *("://a:", "-----BEGIN ", "Bearer ", "password='", "[redacted:", "[redacted:key]", "%20", "\\n", 'key="', "AKIA"),
    *("sk-a1b2c3d4e5f6g7h8i9 ", "key: \\", 'password=\\"', "a@b.", "é@"),
]


@pytest.mark.parametrize("piece", ADVERSARIAL)
def test_the_work_grows_with_the_length_of_an_odd_text_and_no_faster(piece: str) -> None:
    few, many = (_steps(lambda n=n: redact(piece * n)) for n in (200, 1_600))
    assert many <= few * 8 * 1.5 + 500


@pytest.mark.parametrize("piece", ADVERSARIAL)
def test_a_long_odd_text_ends(piece: str) -> None:
    """Twenty thousand pieces: what backtracks or reads again from each place would take very long here."""
    cleaned = redact(piece * 20_000)
    assert re.sub(r"\[redacted:[a-z]+\]", "", cleaned).count("sk-a1b2c3d4") == 0
