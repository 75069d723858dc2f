"""DBOS in this process: launched on an event loop of its own, and called from threads of its own.

    server.open()                          launches; DBOS allows one instance in a process
    await server.run(DBOS.list_workflows, …)   from any loop: in a thread, errors as ours
    await server.on_loop(coroutine)        what DBOS wants to have begun on a loop

Programs keep their loops to themselves: DBOS puts a thread pool of its own under the loop that starts a workflow, and
that pool is gone after it was closed. So workflows run on our loop, and only bodies on those of callers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from agentflow.errors import DurabilityError, MissingExtraError
from agentflow.integrations.dbos.address import shown_url
from agentflow.integrations.dbos.failures import explained
from agentflow.integrations.dbos.workflows import workflows

__all__ = ["Server", "Settings"]

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = 20  # as many as DBOS has connections


@dataclass(frozen=True, slots=True)
class Settings:
    """`patience` is how long, in seconds, a call may wait for a server that is away. `engine` is the process's name."""

    url: str
    application: str
    version: str
    engine: str
    patience: float
    polling: float


class Server:
    """`queues` are those that this process runs."""

    def __init__(self, settings: Settings, queues: Sequence[str]) -> None:
        self._settings = settings
        self._queues = queues
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agentflow-dbos", daemon=True)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="agentflow-dbos")
        self._closed = False

    @property
    def where(self) -> str:
        return shown_url(self._settings.url)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def open(self) -> None:
        """Blocks until DBOS runs. Raises DurabilityError, MissingExtraError."""
        try:
            import dbos  # noqa: F401 - is it there?
        except ImportError:
            raise MissingExtraError("durable runs on PostgreSQL", "dbos") from None
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._launch(), self._loop).result()

    async def _launch(self) -> None:
        """On our loop, so that DBOS takes it for the one that workflows run on."""
        from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer

        # With a handler there DBOS adds none that prints on the terminal: what it says goes where the program wants it.
        logging.getLogger("dbos").addHandler(logging.NullHandler())
        given = self._settings
        config = DBOSConfig(
            name=given.application,
            system_database_url=given.url,
            application_version=given.version,
            executor_id=given.engine,
            serializer=DBOSPortableJSONSerializer(),
            db_engine_kwargs={"hide_parameters": True},  # what is in a run does not belong in messages
            notification_listener_polling_interval_sec=given.polling,
            scheduler_polling_interval_sec=1.0,
        )
        DBOS(config=config)
        if DBOS.executor_id != given.engine:
            raise DurabilityError("this process runs DBOS already: AgentFlow needs an instance of its own")
        workflows()
        DBOS.listen_queues(self._queues)
        DBOS.launch()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises DurabilityError, also where the server has not answered for as long as we are patient."""
        return await self.answer(asyncio.wrap_future(self.submit(partial(function, *args, **kwargs))))

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Have a thread call it."""
        if self._is_closed():
            raise DurabilityError("the engine is closed")
        return self._pool.submit(function)

    async def answer(self, future: asyncio.Future[T]) -> T:
        """What comes of what a thread was given to do."""
        try:
            return await asyncio.wait_for(future, self._settings.patience)
        except TimeoutError as error:
            text = f"{self.where} has not answered for {self._settings.patience:g} s: see whether it runs"
            raise DurabilityError(text) from error
        except asyncio.CancelledError:
            if future.cancelled() and self._is_closed():
                raise DurabilityError("the engine was closed") from None
            raise
        except BaseException as error:
            raise self.explained(error) from error

    async def on_loop(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Begun without what surrounds the caller: its workflow, if it is in one, has nothing to do with this."""
        if self._is_closed():
            raise DurabilityError("the engine is closed")
        future = Context().run(lambda: asyncio.run_coroutine_threadsafe(make(), self._loop))
        try:
            return await asyncio.wrap_future(future)
        except Exception as error:
            raise self.explained(error) from error

    def _is_closed(self) -> bool:
        return self._closed

    def explained(self, error: BaseException, run_id: str | None = None) -> BaseException:
        return explained(error, self.where, run_id)

    def close(self, drain: float = 0.0) -> None:
        """Blocks. Executions that are under way after `drain` seconds stay as they are in the database."""
        if self._thread.ident is None:  # it never was open
            self._loop.close()
            return
        from dbos import DBOS

        DBOS.destroy(workflow_completion_timeout_sec=int(drain))
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        with suppress(RuntimeError):  # its loop may have gone with the program
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
