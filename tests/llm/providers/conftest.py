"""Programs that this project did not write, for the tests of the providers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.support import aimock as mock
from tests.support.litellm_proxy import Proxy, proxying
from tests.support.programs import Oracle


@pytest.fixture(scope="session")
def aimock(node_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[mock.Aimock]:
    """A running aimock, which answers the questions of tests/support/aimock.py."""
    with mock.running(node_program, tmp_path_factory.mktemp("aimock")) as server:
        yield server


@pytest.fixture(scope="session")
def litellm(aimock: mock.Aimock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A running litellm proxy, with that aimock behind it."""
    with proxying(aimock, tmp_path_factory.mktemp("litellm")) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def oracles() -> Iterator[Callable[[str], Oracle]]:
    """The official SDKs by their names ("openai", "anthropic", "google"), each in a process that serves all tests."""
    running: dict[str, Oracle] = {}

    def oracle(sdk: str) -> Oracle:
        if sdk not in running:
            running[sdk] = Oracle(sdk)
        return running[sdk]

    yield oracle
    for each in running.values():
        each.close()
