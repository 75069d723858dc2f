"""Amounts are short, and round as people do."""

from __future__ import annotations

import pytest

from agentflow.mcp.compression.artifact import amounts


@pytest.mark.parametrize(
    ("form", "value", "said"),
    [
        ("size", 0, "0 B"), ("size", 999, "999 B"), ("size", 1000, "1 kB"), ("size", 4_512_345, "4.51 MB"),
        ("size", 999_960_000, "1 GB"), ("size", 13.2e9, "13.2 GB"), ("size", 2.5e15, "2,500 TB"),
        ("seconds", 0.0000213, "21.3 µs"), ("seconds", 0.004, "4 ms"), ("seconds", 0.99951, "1 s"),
        ("seconds", 31.04, "31 s"),
        ("share", 0.9134, "91.3 %"), ("change", 0.012, "+1.20 %"), ("change", -0.5, "-50.00 %"),
        ("number", 0.0, "0"), ("number", 0.021234, "0.02123"), ("number", 40.4, "40.4"),
        ("number", 123456.0, "123,456"),
        ("rate", 307.4, "307"), ("rate", 12345.0, "12,345"), ("rate", 5.0312, "5.03"),
        ("count", 950, "950"), ("count", 3_360_000, "3.36 M"), ("count", 7.24e9, "7.24 G"),
    ],
)  # fmt: skip
def test_an_amount_is_said(form: str, value: float, said: str) -> None:
    assert amounts.FORMS[form](value) == said
