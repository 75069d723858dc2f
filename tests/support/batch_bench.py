"""A place to run batch jobs in: a provider on loopback, a clock that jumps, a file, and processes that die.

async with BatchBench(tmp_path) as bench:
    job = await bench.submit(["a", "b"], model="openai")
    results = await bench.results(job)
    bench.die_at = 7          the seventh write to the file, or call of the provider, is the last thing that is done
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.batch_api_server import BatchApiServer, JumpingClock

from agentflow.llm.config.registry import ModelRegistry
from agentflow.mcp.performance.batching.jobs import job as jobs
from agentflow.mcp.performance.batching.jobs.job import BatchJob
from agentflow.mcp.performance.batching.jobs.policy import BatchPolicy
from agentflow.mcp.performance.batching.jobs.result import BatchResult
from agentflow.mcp.performance.batching.jobs.store import Store

__all__ = ["BatchBench", "Died", "Edges", "mortal"]

Json = dict[str, Any]


class Died(BaseException):
    """The process is gone: nothing that is not in the file is left of it."""


class Edges:
    """Counts the edges that a job crosses, and dies at one of them: before or after a write to the file, before or
    after a call of the provider; by its number, or at the first of a `name`. `die` is what it means to die."""

    def __init__(self, at: int | None, die: Callable[[str], None], *, name: str = "") -> None:
        self.crossed: list[str] = []
        self._at = at
        self._name = name
        self._die = die

    def cross(self, name: str) -> None:
        self.crossed.append(name)
        if name == self._name or (self._at is not None and len(self.crossed) > self._at):
            self._die(name)


def _gone(name: str) -> None:
    raise Died(name)


class _MortalStore(Store):
    """A file that its process may die before and after writing to."""

    edges: Edges

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """A process may die here, but not the machine: nobody waits for the disk."""
        made = super().open(path)
        made._connection.execute("PRAGMA synchronous = OFF")
        return made

    @contextmanager
    def _change(self) -> Iterator[Any]:
        self.edges.cross("before a write")
        with super()._change() as change:
            yield change
        self.edges.cross("after a write")


class _MortalEndpoint:
    """A provider that the process may die before and after calling."""

    def __init__(self, inner: Any, edges: Edges) -> None:
        self._inner = inner
        self._edges = edges
        self.limits = inner.limits
        self.write, self.takes_file, self.read = inner.write, inner.takes_file, inner.read

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)

        async def called(*args: Any, **named: Any) -> Any:
            self._edges.cross(f"before {name}")
            answer = await call(*args, **named)
            self._edges.cross(f"after {name}")
            return answer

        return called

    async def answers(self, batch: Any) -> AsyncIterator[Any]:
        self._edges.cross("before answers")
        async for answer in self._inner.answers(batch):
            yield answer
            self._edges.cross("between answers")


def mortal(edges: Edges) -> Callable[[], None]:
    """Let jobs of this process cross those edges. Returns what ends it."""
    kind = type("MortalStore", (_MortalStore,), {"edges": edges})
    store, endpoint = jobs.Store, jobs._endpoint
    jobs.Store = kind  # type: ignore[misc,assignment]
    jobs._endpoint = lambda registry, model: _MortalEndpoint(endpoint(registry, model), edges)  # type: ignore[assignment,return-value]

    def back() -> None:
        jobs.Store, jobs._endpoint = store, endpoint  # type: ignore[misc]

    return back


class BatchBench:
    """`options` are those of the providers, by kind; see `BatchApiServer.models_yml`."""

    def __init__(self, folder: Path, *, seed: int = 0, **options: Json) -> None:
        self.clock = JumpingClock(seed=seed)
        self.server = BatchApiServer(self.clock.time, seed=seed)
        self.folder = folder
        self.store = folder / "batches.db"
        self.policy = BatchPolicy(settle=60.0)
        self._options = options
        self._registry: ModelRegistry | None = None
        self._patched: list[Callable[[], None]] = []
        self.edges = Edges(None, _gone)

    async def __aenter__(self) -> BatchBench:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.live_on()
        if self._registry is not None:
            await self._registry.aclose()
        await self.server.__aexit__()

    @property
    def registry(self) -> ModelRegistry:
        if self._registry is None:
            path = self.folder / "models.yml"
            path.write_text(self.server.models_yml(**self._options), encoding="utf-8")
            self._registry = ModelRegistry.load(path, environ={}, cwd=self.folder, home=self.folder, clock=self.clock)
        return self._registry

    async def submit(self, asked: Sequence[Any], *, model: str, **how: Any) -> BatchJob:
        how.setdefault("policy", self.policy)
        return await BatchJob.submit(asked, model=model, store=self.store, registry=self.registry, **how)

    async def submit_in_background(self, asked: Sequence[Any], *, model: str, **how: Any) -> BatchJob:
        """A job whose submission nobody waits for: it is left where its outcome is not known."""
        clock, sleep = self.clock, self.clock.sleep

        async def give_up(seconds: float) -> None:
            raise Died

        clock.sleep = give_up  # type: ignore[method-assign]
        try:
            await self.submit(asked, model=model, **how)
        except Died:
            return self.open()
        finally:
            clock.sleep = sleep  # type: ignore[method-assign]
        raise AssertionError("its outcome is known")

    def open(self, id: str = "") -> BatchJob:
        return BatchJob.open(id or BatchJob.all(self.store)[0].id, store=self.store, registry=self.registry)

    async def results(self, job: BatchJob) -> list[BatchResult]:
        return [result async for result in job.results()]

    # ---- dying -----------------------------------------------------------------------------------------------

    def mortal(self, at: int | None) -> Edges:
        """From now on, the process dies at that edge; None for a life without end, which counts them."""
        self.live_on()
        self.edges = Edges(at, _gone)
        self._patched.append(mortal(self.edges))
        return self.edges

    def live_on(self) -> None:
        while self._patched:
            self._patched.pop()()

    async def through_lives(
        self, asked: Sequence[str], *, model: str, deaths: Sequence[int], **how: Any
    ) -> tuple[list[BatchResult], int]:
        """The results of a job whose process dies so often, at those edges of its lives, and how often it did."""
        died = 0
        for at in itertools.chain(deaths, [None]):
            self.mortal(at)
            try:
                job = await self.submit(asked, model=model, job_id="af-test", **how)
                with job:
                    return await self.results(job), died
            except Died:
                died += 1
                self.clock.now += 1.0
        raise AssertionError("the last life has no end")
