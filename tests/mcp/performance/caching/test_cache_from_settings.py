"""`cache:` in models.yml: through the registry and the client, as a user has it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.support.bench import Bench
from tests.support.costly import Costly
from tests.support.event_schema import misfits

from agentflow import AsyncFlow, SharedState, node
from agentflow.errors import ConfigurationError, ModelTimeoutError
from agentflow.llm.messages import EmbeddingRequest, Request, Response
from agentflow.llm.wrapped_models import provider_of
from agentflow.mcp.performance.caching import CacheStatistics, ResponseCache, SqliteStore

ONE = """
models:
  m: {provider: toy, temperature: 0, price: {input: 1000, output: 1000}, cache: {ttl: 60}}
  n: {provider: toy, temperature: 0, max_tokens: 5, cache: {ttl: 60, file: cache.db}}
  o: {provider: toy, temperature: 0, max_tokens: 5, cache: {ttl: 60, file: cache.db, version: "2"}}
  p: {provider: toy, temperature: 0, cache: {ttl: 60, file: cache.db}}
  warm: {provider: toy, temperature: 0.5, cache: {ttl: 60}}
  any: {provider: toy, cache: {ttl: 60, temperature: any, jitter: 0, stale: 30}}
"""


def bench(tmp_path: Path, yml: str = ONE) -> tuple[Bench, Costly]:
    model = Costly(name="toy", cost=None)
    return Bench(tmp_path, {"toy": model}, yml), model


def cache_of(bench: Bench, name: str) -> ResponseCache:
    provider = provider_of(bench.registry, name)
    assert isinstance(provider, ResponseCache)
    return provider


async def ask(bench: Bench, model: str = "m", prompt: str = "Hi") -> Response:
    return await bench.ask(model, prompt).execute_full()


async def streamed(bench: Bench, model: str = "m") -> Response:
    async with bench.ask(model).streaming(True).execute_streaming() as stream:
        return await stream.collect()


def test_the_second_answer_is_free_and_asks_nobody(tmp_path: Path) -> None:
    """Priced by the entry: 15 tokens at a thousandth of a dollar. The cache tells what it did, the model only what it
    was asked."""
    made, model = bench(tmp_path)

    async def both() -> tuple[Response, Response]:
        return await ask(made), await ask(made)

    first, second = made.run_watched(both)
    assert (first.cost, first.cache_hit) == (pytest.approx(0.015), None)
    assert (second.text, second.cost, second.cache_hit) == (first.text, 0.0, "exact")
    assert second.timing is not None
    assert second.timing.attempts == 0
    assert [kind for kind in made.kinds if kind.startswith(("cache", "model"))] == [
        "cache_miss", "model_start", "model_success", "cache_hit",
    ]  # fmt: skip
    assert misfits(made.events) == []
    told = made.events[-1].data
    assert (told["reason"], told["saved"], told["input_tokens"]) == ("fresh", pytest.approx(0.015), 10)
    assert cache_of(made, "m").statistics().saved == pytest.approx(0.015)
    assert len(model.calls) == 1


def test_streams_and_whole_answers_are_one(tmp_path: Path) -> None:
    made, model = bench(tmp_path)

    async def all_of_them() -> list[Response]:
        return [await streamed(made), await streamed(made), await ask(made)]

    first, second, third = made.run_watched(all_of_them)
    assert (first.cost, first.cache_hit) == (pytest.approx(0.015), None)
    for again in (second, third):
        assert (again.text, again.cost, again.cache_hit) == (first.text, 0.0, "exact")
        assert again.provider == first.provider == "toy"
    assert len(model.calls) == 1


def test_what_an_entry_says_counts(tmp_path: Path) -> None:
    """Its temperature is that of its requests; and two entries of one file share answers only where they say the
    same."""
    made, model = bench(tmp_path)

    async def main() -> dict[str, list[str | None]]:
        return {name: [(await ask(made, name)).cache_hit for _ in range(2)] for name in ("warm", "any", "n", "o", "p")}

    hits = made.run(main())
    assert hits == {
        "warm": [None, None], "any": [None, "exact"], "n": [None, "exact"], "o": [None, "exact"], "p": [None, "exact"],
    }  # fmt: skip
    assert len(model.calls) == 6


def test_the_file_is_found_again_by_another_process(tmp_path: Path) -> None:
    """It lies where relative paths count from, and its secret beside it."""
    made, model = bench(tmp_path)

    async def once(made: Bench) -> str | None:
        hit = (await ask(made, "n")).cache_hit
        await made.registry.aclose()
        return hit

    assert made.run(once(made)) is None
    again, model = bench(tmp_path)
    assert again.run(once(again)) == "exact"
    assert model.calls == []
    assert {each.name for each in tmp_path.iterdir()} >= {"cache.db", "cache.db.key"}


def test_vectors_go_through_it(tmp_path: Path) -> None:
    made, model = bench(tmp_path)

    async def main() -> CacheStatistics:
        for _ in range(2):
            await cache_of(made, "m").embed(EmbeddingRequest("m", ("a", "b")))
        return cache_of(made, "m").statistics()

    found = made.run(main())
    assert (found.texts, found.texts_found) == (4, 2)
    assert model.texts == [("a", "b")]


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{}", "ttl"),
        ("{ttl: 0}", "ttl"),
        ("{ttl: 60, jitter: 1}", "jitter"),
        ("{ttl: 60, temperature: warm}", "temperature"),
        ("{ttl: 60, files: x}", "files"),
        ("{ttl: 60, file_bytes: 9}", "file"),
        ("{ttl: 60, file: a.db, shared: true}", "one of file and shared"),
        ("{ttl: 60, shared: true}", "secret_env or secret_file"),
        ("{ttl: 60, secret_env: A, secret_file: b}", "one secret"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, section: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        made, _ = bench(tmp_path, f"models: {{m: {{provider: toy, cache: {section}}}}}")
        provider_of(made.registry, "m")


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{ttl: 60, file: a.db, secret_env: CACHE_SECRET}", "CACHE_SECRET is not set"),
        ("{ttl: 60, shared: true, secret_file: key}", "defaults.shared"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, section: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        made, _ = bench(tmp_path, f"models: {{m: {{provider: toy, cache: {section}}}}}")
        provider_of(made.registry, "m")


def test_a_secret_of_the_environment_makes_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another secret finds nothing of what was kept."""
    yml = "models: {m: {provider: toy, temperature: 0, cache: {ttl: 60, file: c.db, secret_env: CACHE_SECRET}}}"

    async def once(made: Bench) -> str | None:
        hit = (await ask(made)).cache_hit
        await made.registry.aclose()
        return hit

    found = []
    for secret in ("0123456789abcdef", "0123456789abcdef", "another secret of 16"):
        monkeypatch.setenv("CACHE_SECRET", secret)
        made, _ = bench(tmp_path, yml)
        found.append(made.run(once(made)))
    assert found == [None, "exact", None]
    assert not (tmp_path / "c.db.key").exists()


def test_a_store_that_others_share_needs_a_secret() -> None:
    class Store(SqliteStore):
        pass

    ResponseCache(Costly(), ttl=60, store=Store("x.db"))  # has its own
    with pytest.raises(ConfigurationError, match="secret that all of them know"):
        ResponseCache(Costly(), ttl=60, store=object())  # type: ignore[arg-type]


# ---- limits of time, and runs that end -----------------------------------------------------------------------


def test_whose_time_is_over_leaves_the_call_to_the_others(tmp_path: Path) -> None:
    """A second is all that the first one has; the other has ten, and the model takes five."""
    made, _ = bench(tmp_path)

    class Slow(Costly):
        async def execute(self, request: Request) -> Response:
            await made.clock.sleep(5.0)
            return await super().execute(request)

    slow = Slow(name="toy", cost=None)
    made.add("toy", slow)

    async def main() -> tuple[Response | BaseException, Response | BaseException]:
        first = made.ask("m").timeout(1.0).execute_full()
        second = made.ask("m").timeout(20.0).execute_full()
        return await asyncio.gather(first, second, return_exceptions=True)

    first, second = made.run_watched(main)
    assert isinstance(first, ModelTimeoutError)
    assert isinstance(second, Response)
    assert second.text.startswith("answer")
    assert second.cost == pytest.approx(0.015)
    assert made.clock.monotonic() < 12
    made.assert_free("m")


def test_a_call_outlives_the_run_that_began_it(tmp_path: Path) -> None:
    """The flow that asked first is cancelled; the one that waited gets the answer, and both runs end as they should."""
    made, model = bench(tmp_path)
    model.gate = asyncio.Event()

    @node
    async def put(state: SharedState) -> None:
        state["text"] = (await ask(made)).text

    flow = AsyncFlow(put, name="f")

    async def main() -> tuple[object, str]:
        first = asyncio.create_task(flow.run({}))
        while not model.calls:
            await asyncio.sleep(0)
        second = asyncio.create_task(flow.run({}))
        for _ in range(200):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait((first,))
        model.gate.set()  # type: ignore[union-attr]
        return first.cancelled(), (await second).state["text"]

    cancelled, text = made.run_watched(main)
    assert (cancelled, text) == (True, "answer 1 to Hi")
    assert len(model.calls) == 1


def test_a_router_whose_candidate_is_another_model_now_has_answers_of_its_own(tmp_path: Path) -> None:
    yml = """
models:
  bare: {{provider: toy, model_id: {model}}}
  auto: {{temperature: 0, router: {{candidates: [bare]}}, cache: {{ttl: 60, file: cache.db}}}}
"""
    found = []
    for model in ("one", "two", "one"):
        made, _ = bench(tmp_path, yml.format(model=model))

        async def asked(made: Bench = made) -> str | None:
            hit = (await ask(made, "auto")).cache_hit
            await made.registry.aclose()
            return hit

        found.append(made.run(asked()))
    assert found == [None, None, "exact"]


def test_another_server_under_the_same_name_has_answers_of_its_own(tmp_path: Path) -> None:
    """Also for a router whose candidate it is."""
    yml = """
providers: {{toy: {{base_url: "http://127.0.0.1:{port}/v1"}}}}
models:
  m: {{provider: toy, temperature: 0, cache: {{ttl: 60, file: cache.db}}}}
  bare: {{provider: toy, temperature: 0}}
  auto: {{temperature: 0, router: {{candidates: [bare]}}, cache: {{ttl: 60, file: cache.db}}}}
"""
    found = []
    for port in (1, 2, 1):
        made, _ = bench(tmp_path, yml.format(port=port))

        async def both(made: Bench = made) -> list[str | None]:
            hits = [(await ask(made, name)).cache_hit for name in ("m", "auto")]
            await made.registry.aclose()
            return hits

        found.append(made.run(both()))
    assert found == [[None, None], [None, None], ["exact", "exact"]]
