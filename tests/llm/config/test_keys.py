"""Keys: found in the environment and in .env, never allowed in YAML, never repeated."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import ConfigurationError, MissingKeyError
from agentflow.llm.config.dotenv import parse_dotenv, read_dotenv, unread_lines
from agentflow.llm.config.keys import KeyRing, literal_key
from agentflow.llm.config.loader import read_layer
from agentflow.llm.providers.base import Secret, SecretHeaders

SENTINEL = "sk-proj-sentinel0123456789abcdefghij"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1", {"A": "1"}),
        ("  A = 1  ", {"A": "1"}),
        ("export A=1\nB=2", {"A": "1", "B": "2"}),
        ("# A=1\n\nB=2 # two", {"B": "2"}),
        ("A=a#b", {"A": "a#b"}),
        ("A=#nothing", {"A": ""}),
        ("A=", {"A": ""}),
        ("A='x # \\n $Y'", {"A": "x # \\n $Y"}),
        ('A="x\\n\\"y\\" # z" # comment', {"A": 'x\n"y" # z'}),
        ('A="one\ntwo"\nB=2', {"A": "one\ntwo", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=x=y==", {"A": "x=y=="}),
        ("just words\nexport X\nB=2", {"B": "2"}),
        ("A=it's", {"A": "it's"}),
        ("A=\nB=2", {"A": "", "B": "2"}),
    ],
)
def test_dotenv_reads_the_syntax_on_which_readers_agree(text: str, found: dict[str, str]) -> None:
    assert parse_dotenv(text) == found


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("A=1\n\n# a comment\nexport A\nexport B=2\n", []),
        ("OPENAI_API_KEY sk-abc\nA=1\n: b\n", [1, 3]),
        ("A=\"one\ntwo\"\njust words\r\nB='x\ny'\nmore words", [3, 6]),
        ("", []),
    ],
)
def test_lines_that_assign_nothing_can_be_told(tmp_path: Path, text: str, lines: list[int]) -> None:
    (tmp_path / ".env").write_bytes(text.encode())
    assert unread_lines(tmp_path / ".env") == lines
    told = list(KeyRing({}, tmp_path / ".env").stray_lines())
    assert len(told) == len(lines)
    assert "words" not in "".join(told)


def test_an_open_quote_is_an_error_that_names_the_line_and_not_the_value() -> None:
    with pytest.raises(
        ConfigurationError, match=r"\.env:2: the quote that opens the value of KEY is never closed"
    ) as caught:
        parse_dotenv(f"A=1\nKEY='{SENTINEL}\nB=2")
    assert "sentinel" not in str(caught.value)


@given(
    st.dictionaries(
        st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,5}\Z"),
        st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=12),
    )
)
def test_what_is_quoted_with_escapes_is_read_back(values: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert parse_dotenv("\n".join(f"{name}={quoted(value)}" for name, value in values.items())) == values


def test_a_missing_dotenv_is_empty_and_a_broken_one_an_error(tmp_path: Path) -> None:
    assert read_dotenv(tmp_path / ".env") == {}
    assert read_dotenv(tmp_path) == {}
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_dotenv(tmp_path / ".env")
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfA=1")
    assert read_dotenv(tmp_path / ".env") == {"A": "1"}


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ONE=from-file\nTWO=also-file\n")
    ring = KeyRing({"ONE": "from-environment", "EMPTY": "  "}, tmp_path / ".env")
    for names, expected in [(["ONE"], "from-environment"), (["TWO"], "also-file"), (["EMPTY", "TWO"], "also-file")]:
        key = ring.find(names)
        assert key is not None
        assert key.reveal() == expected
    assert ring.find(["THREE", "EMPTY"]) is None


def test_any_variable_of_the_environment_wins_over_any_of_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=file\n")
    key = KeyRing({"OPENAI_KEY": "environment"}, tmp_path / ".env").find(["OPENAI_API_KEY", "OPENAI_KEY"])
    assert key is not None
    assert key.reveal() == "environment"


def test_blanks_around_a_key_are_cut_off_and_blanks_inside_are_an_error() -> None:
    key = KeyRing({"K": f" {SENTINEL}\n"}).find(["K"])
    assert key is not None
    assert key.reveal() == SENTINEL
    for bad in ("two words", "new\nline", "schlüssel"):
        with pytest.raises(ConfigurationError, match="the value of K cannot be a key") as caught:
            KeyRing({"K": bad}).find(["K"])
        assert bad not in str(caught.value)


def test_a_missing_key_names_all_variables_that_would_hold_it() -> None:
    with pytest.raises(MissingKeyError, match=r"set OPENAI_API_KEY \(or OPENAI_KEY\) in the environment or in \.env"):
        KeyRing({}).require("openai", ["OPENAI_API_KEY", "OPENAI_KEY"])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"providers:\n  openai:\n    api_key: {SENTINEL}\n", "m.yml:3:5: providers.openai.api_key holds"),
        ("providers: {openai: {apikey: sentinel-short}}", "m.yml:1:22: providers.openai.apikey holds"),
        (
            "providers: {openai: {headers: {Authorization: Basic sentinel}}}",
            "openai.headers.Authorization holds",
        ),
        ("providers: {openai: {headers: {x-api-key: sentinel}}}", "providers.openai.headers.x-api-key holds"),
        (f"providers: {{openai: {{headers: {{x-team: Bearer {SENTINEL}}}}}}}", "providers.openai.headers.x-team holds"),
        (f"providers: {{openai: {{api_key_env: {SENTINEL}}}}}", "providers.openai.api_key_env holds"),
        (f"providers: {{openai: {{base_url: 'https://h/v1?k={SENTINEL}'}}}}", "providers.openai.base_url holds"),
        (f"models: {{a: {{params: {{deep: [x, {{y: {SENTINEL}}}]}}}}}}", "models.a.params.deep.1.y holds"),
        (f"models: {{'{SENTINEL}': {{provider: openai}}}}", "m.yml:1:1: models holds"),
        (f"x: &a {SENTINEL}\ny: *a\n", "holds"),
        ("providers: {g: {options: {z: AIzaSentinel0123456789abcdefghijklmnop}}}", "providers.g.options.z holds"),
        ("providers: {openai: {secret: sentinel}}", "providers.openai.secret holds"),
    ],
)
def test_a_key_in_yaml_is_an_error_that_does_not_repeat_it(text: str, place: str) -> None:
    with pytest.raises(ConfigurationError, match="looks like a key") as caught:
        read_layer("m.yml", text)
    assert place in str(caught.value)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(caught.value.__dict__)
    # The source lines of this very test stand in the traceback, but they hold only the parameter's name.
    assert "entinel" not in told.replace("SENTINEL", "")


@pytest.mark.parametrize("name", ["0123456789abcdef0123456789abcdef", "hunter2", "a-b", ""])
def test_a_key_of_no_known_shape_in_api_key_env_is_refused_unrepeated(name: str) -> None:
    with pytest.raises(ConfigurationError, match="found something else, allowed is the name of an env") as caught:
        read_layer("m.yml", f"providers: {{openai: {{api_key_env: '{name}'}}}}")
    assert not name or name not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "models: {a: {max_tokens: 5, params: {max_completion_tokens: 9, tokens: [1], logit_bias: {token: 3}}}}",
        "providers: {p: {api_key_env: OPENAI_API_KEY, headers: {x-team: search, x-request-token-count: '5'}}}",
        "models: {sk-short: {provider: p}, hf-internal-testing/tiny: {}}",
        "models: {key: {provider: token}}",
        "# api_key: sk-proj-this-is-only-a-comment-0123456789\nmodels: {}",
    ],
)
def test_what_only_resembles_a_key_is_allowed(text: str) -> None:
    read_layer("m.yml", text)


def test_looking_for_keys_terminates_on_shared_aliases() -> None:
    value: object = ["x"]
    for _ in range(60):
        value = [value, value]
    assert literal_key(value) is None  # type: ignore[arg-type]  # built as `object`


@pytest.mark.parametrize("travel", [pickle.dumps, copy.deepcopy])
@pytest.mark.parametrize("secret", [Secret("sk-1"), SecretHeaders({"authorization": "Bearer sk-1"})])
def test_what_holds_a_key_is_not_pickled(secret: object, travel: Callable[[object], object]) -> None:
    """Nor shown by its repr: a queue, a cache or a log would keep it."""
    assert "sk-1" not in repr(secret)
    with pytest.raises(TypeError, match="not pickled"):
        travel(secret)
