"""Many requests at half the price: `BatchJob`, which survives whatever its process does not.

job = await BatchJob.submit(prompts, model="gpt-4o-mini", store=".agentflow/batches.db")
print(job.id)                                      # later, in another process: BatchJob.open(id, store=…)
async for result in job.results():                 # as they arrive
    print(result.index, result.text)
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType

from msgspec import structs

from agentflow.core.observability.scope import current_scope, scope_outside
from agentflow.core.run import current_run, new_run_id
from agentflow.errors import BatchError, BatchHeldError, BatchRefusedError, ConfigurationError, UnsupportedError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.caller import current_caller
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.providers.base import BatchProvider
from agentflow.llm.providers.batches.endpoint import BatchEndpoint
from agentflow.llm.wrapped_models import provider_of
from agentflow.mcp.performance.batching.jobs.asking import Asked, digest_of, written
from agentflow.mcp.performance.batching.jobs.course import Course
from agentflow.mcp.performance.batching.jobs.desk import Desk
from agentflow.mcp.performance.batching.jobs.forecast import chance_of
from agentflow.mcp.performance.batching.jobs.funding import funding_of
from agentflow.mcp.performance.batching.jobs.ids import checked_id, new_job_id
from agentflow.mcp.performance.batching.jobs.policy import BatchPolicy, parts_of
from agentflow.mcp.performance.batching.jobs.result import BatchResult, BatchStatus, result_of, status_of
from agentflow.mcp.performance.batching.jobs.rows import Entry, JobRow, SettledRow
from agentflow.mcp.performance.batching.jobs.states import FINAL, State
from agentflow.mcp.performance.batching.jobs.store import Store

__all__ = ["BatchJob"]


class BatchJob:
    """One job: requests to one model, in as many batches as its provider takes.

    What it is to do stands in the `store`, a SQLite file that may hold many jobs, before anything is sent, and what it
    has done as soon as it is done. So it can be left at any time, by `break`, an exception or a power failure, and
    opened again: what is paid for is not sent twice, what is answered is not lost. One process at a time works on a
    job; any may read its status.

    With a `deadline` (a datetime with a time zone, or seconds from now) it stops waiting when there is just time enough
    to ask what is left directly, at the full price: its batches are called off first, and their answers so far kept. A
    batch that does not end in time may be billed beside the direct calls; `status().at_risk` counts those requests, and
    once the batch has ended `billed_twice` says for how many it came true.
    """

    def __init__(self, id: str, store: Store, registry: ModelRegistry) -> None:
        self._id = id
        self._store = store
        self._registry = registry

    # ---- making and finding ----------------------------------------------------------------------------------

    @classmethod
    async def submit(
        cls,
        requests: Sequence[Asked],
        *,
        model: str,
        store: str | Path,
        deadline: datetime | float | None = None,
        policy: BatchPolicy | None = None,
        job_id: str | None = None,
        registry: ModelRegistry | None = None,
    ) -> BatchJob:
        """Store the job, hand it to the provider, and return it once that has it.

        With a `job_id` of your own this can be repeated: where the file has a job of that id that asks the same, that
        one goes on. Raises ConfigurationError, UnsupportedError and BadRequestError for what cannot be asked, before
        anything is stored; BatchError where the id belongs to another job; BatchRefusedError where the provider refuses
        all of it; the ModelError that lets nothing be sent (a wrong key), after which the job waits in the file.
        """
        if not requests:
            raise ConfigurationError("a batch job needs at least one request")
        registry = registry or AgentFlow.registry
        policy = policy or BatchPolicy()
        config = registry.describe(model)
        endpoint = _endpoint(registry, model)
        id = new_job_id() if job_id is None else checked_id(job_id)
        made = await written(requests, id, config, endpoint, registry)
        opened = Store.open(store)
        try:
            if opened.has(id):
                if opened.job(id).digest != digest_of(made):
                    raise BatchError(f"batch job {id} asks something else: take another job_id", job=id)
            else:
                now = registry.clock.time()
                row = JobRow(
                    id,
                    config.name,
                    config.provider,
                    config.model_id,
                    now,
                    _moment(deadline, now),
                    _tenant(),
                    policy.as_json(),
                    digest_of(made),
                )
                opened.add(row, made, parts_of([len(new.body) for new in made], endpoint.limits, policy))
            job = cls(id, opened, registry)
            await job._send()
        except BaseException:
            opened.close()
            raise
        return job

    @classmethod
    def open(cls, id: str, *, store: str | Path, registry: ModelRegistry | None = None) -> BatchJob:
        """The job of that id, or of its beginning. Raises UnknownBatchError. Nobody is asked, and no key is needed,
        before it goes on."""
        opened = _existing(store)
        try:
            return cls(opened.job(id).id, opened, registry or AgentFlow.registry)
        except BaseException:
            opened.close()
            raise

    @staticmethod
    def all(store: str | Path) -> list[BatchStatus]:
        """How the jobs in a file are, the newest first. Needs no key and no provider."""
        opened = _existing(store)
        try:
            return [status_of(job, opened.parts(job.id), opened.counts(job.id), chance=None) for job in opened.jobs()]
        finally:
            opened.close()

    # ---- going on --------------------------------------------------------------------------------------------

    async def results(self) -> AsyncGenerator[BatchResult, None]:
        """What became of each request, once each: first what is known already, then as it arrives, until all is known.

        Raises BatchHeldError where another process works on the job, and the ModelError that lets nothing be sent.
        """
        last = 0
        for row in self._settled(last):
            last = row.settled
            yield result_of(row)
        if self.status().done:
            return
        async with aclosing(self._course()) as course:
            async for _ in course:
                for row in self._settled(last):
                    last = row.settled
                    yield result_of(row)
        for row in self._settled(last):
            last = row.settled
            yield result_of(row)

    async def finish(self) -> BatchStatus:
        """Work until every request is settled and the provider has let go of every batch; then it is known, too, what
        was billed twice."""
        async with aclosing(self._course(to_the_end=True)) as course:
            async for _ in course:
                pass
        return self.status()

    async def cancel(self) -> BatchStatus:
        """Call the job off: what was not sent never is, batches at the provider are cancelled, and what they have
        answered by then is kept, for it is paid for. `results` or `finish` wait for the end of it."""
        self._store.call_off(self._id, self._registry.clock.time())
        with suppress(BatchHeldError):  # whoever works on it sees to it at his next step
            async with aclosing(self._course(until_sent=True, once=True)) as course:
                async for _ in course:
                    pass
        return self.status()

    async def _send(self) -> None:
        async with aclosing(self._course(until_sent=True)) as course:
            async for _ in course:
                pass
        parts = self._store.parts(self.id)
        if all(part.state is State.FAILED and part.batch is None for part in parts):
            reason = next(entry.reason for entry in reversed(self.journal()) if entry.new is State.FAILED)
            raise BatchRefusedError(f"the provider refuses batch job {self.id}: {reason}", job=self.id)

    async def _course(
        self, *, until_sent: bool = False, to_the_end: bool = False, once: bool = False
    ) -> AsyncGenerator[int, None]:
        desk = _watched(_desk(self._store, self._id, self._registry))
        course = Course(desk, until_sent=until_sent, to_the_end=to_the_end, once=once)
        try:
            async with aclosing(course.run()) as news:
                async for settled in news:
                    yield settled
        finally:
            if desk.funding is not None:
                await desk.funding.aclose()

    # ---- looking ---------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    def status(self) -> BatchStatus:
        """How far it is, as the file says: nobody is asked."""
        store, job, now = self._store, self._store.job(self._id), self._registry.clock.time()
        parts = store.parts(job.id)
        chances = [chance_of(store, job, part, now) for part in parts if part.state not in FINAL]
        likely = min([each for each in chances if each is not None], default=None)
        return status_of(job, parts, store.counts(job.id), likely)

    def known(self) -> list[BatchResult]:
        """What became of the requests that are settled, in the order in which they were. Nobody is asked."""
        return [result_of(row) for row in self._settled(0)]

    def journal(self) -> list[Entry]:
        """Everything that was decided and done, in order, with its reason."""
        return self._store.journal(self.id)

    def _settled(self, after: int) -> list[SettledRow]:
        found: list[SettledRow] = []
        while more := self._store.settled(self.id, after=found[-1].settled if found else after):
            found += more
        return found

    # ---- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file. The job stays in it."""
        self._store.close()

    def __enter__(self) -> BatchJob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _existing(store: str | Path) -> Store:
    if not Path(store).exists():
        raise BatchError(f"there is no file {store}: no batch job was submitted there")
    return Store.open(store)


def _endpoint(registry: ModelRegistry, model: str) -> BatchEndpoint:
    _, provider = registry.resolve(model)
    if not isinstance(provider, BatchProvider):
        raise UnsupportedError(f"model {model!r}: provider {provider.name!r} has no batches")
    return provider.batches()


def _desk(store: Store, id: str, registry: ModelRegistry) -> Desk:
    job = store.job(id)
    config = registry.describe(job.model)
    if (config.provider, config.model_id) != (job.provider, job.model_id):
        raise BatchError(
            f"batch job {id} asks {job.provider}/{job.model_id}, but {job.model!r} is now "
            f"{config.provider}/{config.model_id}: go on with the configuration that it began with",
            job=id,
        )
    return Desk(
        id,
        store,
        _endpoint(registry, job.model),
        provider_of(registry, job.model),
        config,
        registry.clock,
        BatchPolicy.from_json(job.policy),
        funding=funding_of(registry, config),
    )


def _moment(deadline: datetime | float | None, now: float) -> float | None:
    if deadline is None:
        return None
    if isinstance(deadline, datetime):
        if deadline.tzinfo is None:
            raise ConfigurationError("a deadline needs a time zone: datetime.now(UTC) + timedelta(hours=2)")
        return deadline.timestamp()
    return now + deadline


def _tenant() -> str | None:
    run = current_run.get()
    return current_caller().tenant or (run.tenant if run else None)


def _watched(desk: Desk) -> Desk:
    """The desk of whoever goes on with the job here and now: his observers hear of it, his ledgers are charged."""
    caller, run = current_caller(), current_run.get()
    scope = caller.scope or current_scope.get() or scope_outside(desk.clock, desk.id, new_run_id)
    ledgers = caller.ledgers
    if run is not None and run.ledger is not None and run.ledger not in ledgers:
        ledgers = (*ledgers, run.ledger)
    for ledger in ledgers:
        ledger.check()
    return dataclasses.replace(
        desk, caller=structs.replace(caller, scope=scope, ledgers=ledgers, tenant=desk.job.tenant)
    )
