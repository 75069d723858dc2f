"""Keeps what a command runs, so that `agentflow trace` can show it: the run store, turned on by the command line.

    with Recording(wanted=True) as recording:
        …                                          # every run and every model call of this process
    recording.recorded, recording.trouble

--no-record and AGENTFLOW_RUNS win over `observability: {runs: …}` of models.yml, which wins over .agentflow/runs.db.
What else models.yml turns on is started here as well, so that it sees flows that ask no model.

Nothing that goes wrong with the file of runs stops or delays a run: what could not be kept is said afterwards, and only
that. A models.yml that cannot be read does stop it: it may ask for an audit, or for nothing to be kept.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Final

from agentflow.cli.recorded import OFF, named_file
from agentflow.cli.tracing.amounts import count_of
from agentflow.core.observability.observers import Observation, observe
from agentflow.core.observability.store import DEFAULT_PATH, RunStore
from agentflow.errors import AgentFlowError
from agentflow.llm.agentflow import AgentFlow
from agentflow.llm.config.registry import ModelRegistry

__all__ = ["Recording"]

_UNHEARD: Final = (
    logging.NullHandler()
)  # where no logging is set up, what the store logs would be said beside `trouble`
_PATIENCE: Final = 2.0  # seconds that the end of a command waits for the disk


class Recording:
    """`wanted` is False for --no-record; `file` is another than the usual one. `kept_in` is the file, if there is one.

    Afterwards `recorded` says whether what ran can be shown, and `trouble` why not, or what of it is missing. Entering
    raises what is wrong with models.yml, and what parts of it raise that cannot be started.
    """

    def __init__(self, *, wanted: bool, file: str | Path | None = None) -> None:
        self.trouble: str | None = None
        self.kept_in: str | Path | None = None
        self._file = file
        self._wanted = wanted
        self._registry: ModelRegistry | None = None
        self._store: RunStore | None = None
        self._observation: Observation | None = None

    @property
    def recorded(self) -> bool:
        return self._store is not None and self.trouble is None

    def __enter__(self) -> Recording:
        logging.getLogger("agentflow.runs").addHandler(_UNHEARD)
        file = (self._file or named_file()) if self._wanted else OFF
        registry = AgentFlow.registry
        if not registry.observing.running:
            self._registry = registry
            registry.observe(runs=file is None)
        if file is None and registry.observing.wants_runs is not None:
            self._store, self.kept_in = registry.observing.runs, registry.observing.runs_path
        elif file != OFF:
            self._keep(file or DEFAULT_PATH)
        return self

    def _keep(self, file: str | Path) -> None:
        self.kept_in = file
        try:
            self._store = RunStore(file)
        except (AgentFlowError, OSError, ValueError) as error:
            self.trouble = str(error)
        else:
            self._observation = observe(self._store)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        store, observation = self._store, self._observation
        if store is not None:
            self._finish(store, observation)
        if self._registry is not None:
            self._registry.observing.close()

    def _finish(self, store: RunStore, observation: Observation | None) -> None:
        """Wait for what is still to be written, and find out whether it was."""
        trouble = store.trouble
        if observation is not None:
            observation.close()
            whole = store.close(_PATIENCE)
        else:
            whole = store.flush(_PATIENCE)  # it belongs to models.yml, and is closed with the rest of it
        if not whole or store.lost:
            missing = (
                f"{count_of(store.lost, 'event')} {'was' if store.lost == 1 else 'were'}" if store.lost else "this was"
            )
            why = trouble or store.trouble or ", ".join(store.losses)
            self.trouble = f"{missing} not recorded in {store.path}{f': {why}' if why else ''}"
