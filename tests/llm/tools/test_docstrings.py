"""What docstrings say about functions and their parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.llm.tools.docstrings import told


def google(city, days, pair=None) -> None:  # type: ignore[no-untyped-def]
    """Forecast.

    More words: even with a colon.

    Args:
        city (str): Where.
        days (list[tuple[int, int]], optional): How many: one
            or more.

            A second paragraph.
        pair: A note: this one.

    Example:
        >>> google("Ur")

    Closing words.
    """


def numpy(city, days, pair=None) -> None:  # type: ignore[no-untyped-def]
    """Forecast.

    More words: even with a colon.

    Parameters
    ----------
    city : str
        Where.
    days : list of int, optional
        How many: one
        or more.

        A second paragraph.
    pair
        A note: this one.

    Examples
    --------
    >>> numpy("Ur")
    """


def sphinx(city, days, pair=None) -> None:  # type: ignore[no-untyped-def]
    """Forecast.

    More words: even with a colon.

    :param str city: Where.
    :param days: How many: one
        or more.
        A second paragraph.
    :type days: list
    :param pair: A note: this one.
    :raises ValueError: Never.
    """


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_docstrings_of_every_style_say_the_same(function: Callable[..., object]) -> None:
    """Parameters are described where they stand, and cut out of the description."""
    words, about = told(function)
    assert about == {
        "city": "Where.",
        "days": "How many: one or more. A second paragraph.",
        "pair": "A note: this one.",
    }
    assert words.startswith("Forecast.\n\nMore words: even with a colon.")
    assert "Where" not in words
    assert ">>>" not in words
    assert "Never" not in words


def test_prose_after_a_section_is_kept() -> None:
    """A section ends where its indent does."""
    assert told(google)[0].endswith("Closing words.")


def test_two_parameters_may_share_a_line() -> None:
    """As NumPy writes it."""

    def f(x, y, z=0) -> None:  # type: ignore[no-untyped-def]
        """Move.

        Parameters
        ----------
        x, y : float
            Where to.

        Returns
        -------
        bool
            Whether it moved.
        """

    assert told(f) == ("Move.\n\nReturns: bool Whether it moved.", {"x": "Where to.", "y": "Where to."})


@given(st.text(st.sampled_from("Args:\n -xy(),*:param@Returns"), max_size=60))
def test_no_docstring_is_too_odd(doc: str) -> None:
    """However it is written, it says something."""

    def f(x: int) -> None: ...

    f.__doc__ = doc
    assert isinstance(told(f)[0], str)


@pytest.mark.parametrize(
    "line", [":math:`x` is the length.", "@mention: hello", ":warning: this costs money", ":8080: is it"]
)
def test_a_line_that_only_looks_like_a_field_is_told(line: str) -> None:
    """Sphinx has roles, and people have colons: only fields that are known are cut out."""

    def function(x: int) -> None: ...

    function.__doc__ = f"Do it.\n\n{line}\n\n:param x: How long.\n:rtype: int\n:raises ValueError: never"
    assert told(function) == (f"Do it.\n\n{line}", {"x": "How long."})


@pytest.mark.parametrize(
    "line",
    [
        "a" + " " * 50_000 + "!",
        "a " * 50_000 + "!",
        "x (" + "()" * 50_000,
        "x (" + "a" * 50_000,
        ":param" + " " * 50_000,
        "a" + "," * 50_000,
        "a" + " ," * 50_000 + "!",
        "-" * 50_000 + "!",
        "a" * 50_000 + "!",
    ],
)
@pytest.mark.parametrize("heading", ["", "Args:\n    ", "Parameters\n----------\n"])
def test_a_long_line_takes_no_time(line: str, heading: str) -> None:
    """Quadratic time would be minutes."""

    def function(x: int) -> None: ...

    function.__doc__ = f"Do it.\n\n{heading}{line}"
    told(function)
