"""Canonical JSON as RFC 8785 wants it: one value, one text."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.observability.audit.canonical import canonical
from agentflow.core.observability.audit.keys import Hmac

# RFC 8785, appendix B: the number's bits, and its text
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_are_written_as_the_rfc_lists_them(bits: str, text: str) -> None:
    value = struct.unpack(">d", bytes.fromhex(bits))[0]
    assert canonical(value) == text.encode()


def test_keys_are_in_the_order_of_their_utf_16_units_and_texts_escaped_as_little_as_may_be() -> None:
    value = {"€": 1, "\r": 2, "\ufb33": 3, "1": 4, "😀": 5, "\x80": 6, "ö": 7}
    assert list(json.loads(canonical(value)).values()) == [2, 4, 6, 7, 1, 5, 3]
    assert canonical('€$\x0f\nA\'B"\\\\"/\x7f') == '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/\x7f"'.encode()


def test_nothing_stands_between_and_nesting_is_kept() -> None:
    assert (
        canonical({"b": [1, None, True, {}], "a": {"d": "", "c": 1.5}})
        == b'{"a":{"c":1.5,"d":""},"b":[1,null,true,{}]}'
    )


@given(JSON)
def test_reading_and_writing_again_gives_the_same_bytes(value: object) -> None:
    text = canonical(value)  # type: ignore[arg-type]
    assert canonical(json.loads(text)) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_is_rounded(value: float) -> None:
    assert float(canonical(value)) == value


@pytest.mark.parametrize("value", [math.nan, {"b": math.inf, "é": 1}, ["\ud800"], {"\udfff": 1}])
def test_what_has_no_text_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical(value)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), max_size=3))
def test_the_seal_is_hmac_sha256(key: bytes, parts: list[bytes]) -> None:
    assert Hmac(key)(*parts) == hmac.new(key, b"".join(parts), hashlib.sha256).hexdigest()
