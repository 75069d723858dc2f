"""Keeps what a command runs, so that `agentflow trace` can show it: the run store, turned on by the command line.

    with Recording(wanted=True) as recording:
        …                                          # every run and every model call of this process
    recording.trouble                              # None: it is in the file

Nothing that goes wrong with the file stops or delays a run: what could not be kept is said afterwards, and only that.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from agentflow.cli.recorded import runs_file
from agentflow.cli.tracing.amounts import count_of
from agentflow.core.observability.observers import Observation, observations, observe
from agentflow.core.observability.store import RunStore
from agentflow.errors import AgentFlowError, ConfigurationError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry

__all__ = ["Recording"]

_PATIENCE: Final = 2.0  # seconds that the end of a command waits for the disk


class Recording:
    """Records into the file that AGENTFLOW_RUNS names, else .agentflow/runs.db. `wanted` is False for --no-record.

    `recorded` says whether what ran can be shown, `trouble` why not, or what of it is missing.
    """

    def __init__(self, *, wanted: bool) -> None:
        self.trouble: str | None = None
        self._wanted = wanted
        self._file = runs_file() if wanted else None
        self._store: RunStore | None = None
        self._observation: Observation | None = None

    @property
    def recorded(self) -> bool:
        return self._file is not None and self.trouble is None

    def __enter__(self) -> Recording:
        """Start what models.yml wants recorded. Raises ConfigurationError, AuditError where that cannot be started."""
        registry: ModelRegistry | None = None
        with suppress(ConfigurationError):  # whoever needs the configuration says what is wrong with it
            registry = AgentFlow.registry
        if registry is not None:
            registry.observe(runs=self._wanted)
        if self._file is None or any(_records(observation, self._file) for observation in observations()):
            return self
        try:
            self._store = RunStore(self._file)
        except (AgentFlowError, OSError, ValueError) as error:
            self.trouble = str(error)
            return self
        self._observation = observe(self._store)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._observation is None or self._store is None:
            return
        self._observation.close()
        trouble = self._store.trouble
        whole = self._store.close(_PATIENCE)
        lost = self._store.lost
        if not whole or lost:
            missing = f"{count_of(lost, 'event')} not recorded" if lost else f"not recorded within {_PATIENCE:g} s"
            why = trouble or self._store.trouble or ", ".join(self._store.losses)
            self.trouble = f"{missing} in {self._store.path}{f': {why}' if why else ''}"


def _records(observation: Observation, file: str) -> bool:
    store = observation.observer
    return isinstance(store, RunStore) and store.path == Path(file).expanduser().absolute()
