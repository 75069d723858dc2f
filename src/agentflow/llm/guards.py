"""What every request of one question to one model has in common: who answers, what guards it, who keeps the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from agentflow.clock import Clock
from agentflow.core.limits import Ledger
from agentflow.core.observability.scope import Scope
from agentflow.core.robustness.deadline import Deadline
from agentflow.core.robustness.load_shedder import Priority
from agentflow.core.robustness.output_estimate import OutputEstimate
from agentflow.core.robustness.pipeline import Pipeline
from agentflow.core.robustness.retry import RetryPolicy
from agentflow.core.robustness.time_limit import bounded_by_context
from agentflow.errors import ConfigurationError, ModelTimeoutError, NotFoundError
from agentflow.llm.config.model import ModelConfig
from agentflow.llm.messages import Usage
from agentflow.llm.providers.base import LLMProvider

__all__ = ["Guards", "KeyUsed", "Suggest", "check_price"]

Suggest = Callable[[str], list[str]]
"""Names of models that are like one that was not found."""

KeyUsed = Callable[[str, str | None, str | None], str | None]
"""Asked where there is an audit log: the fingerprint of a provider's key, which a tenant uses in a run. None without
a key."""


class Guards(Struct, frozen=True):
    """What every request of one question to one model has in common. `patient` is False where the caller himself set
    the time limit, so that a stand-in gets what is left of it. `scope` is where in a run the question is asked; None
    where nobody watches. `wrapped` says that `provider` is what wraps models (see `wrapped.py`): it guards them
    itself."""

    config: ModelConfig
    provider: LLMProvider
    pipeline: Pipeline
    output: OutputEstimate
    policy: RetryPolicy | None
    clock: Clock
    tenant: str | None
    priority: Priority
    patient: bool
    ledgers: tuple[Ledger, ...]
    suggest: Suggest
    scope: Scope | None = None
    run_id: str | None = None
    flow: str | None = None
    key_used: KeyUsed | None = None
    wrapped: bool = False

    def fingerprint(self) -> str | None:
        """What stands for the provider's key in the audit log."""
        return None if self.key_used is None else self.key_used(self.config.provider, self.tenant, self.run_id)

    def deadline(self, seconds: float | None) -> Deadline:
        return Deadline(bounded_by_context(seconds), failure=self.late)

    def late(self, operation: str, seconds: float) -> Exception:
        """What is raised when the time is up."""
        return ModelTimeoutError(operation, seconds, provider=self.config.provider, model=self.config.model_id)

    def cost(self, usage: Usage, model: str, tier: str | None) -> float | None:
        return self.config.cost(usage, model=model, service_tier=tier)

    def spend(self, usage: Usage, cost: float | None) -> None:
        """A request was answered. It is noted at once, so that no cancellation can come between."""
        for ledger in self.ledgers:
            ledger.spend(usage.total_tokens, cost)

    def suggest_others(self, error: NotFoundError) -> None:
        """A model that is not found may have been misspelled: say which ones are like it."""
        if not error.suggestions:
            own = f"{self.config.provider}/"  # the same id elsewhere is no help: this provider was asked
            error.suggest([name for name in self.suggest(self.config.name) if "/" not in name or name.startswith(own)])


def check_price(config: ModelConfig, ledgers: Sequence[Ledger]) -> None:
    """Raises ConfigurationError where a limit in dollars cannot be kept, as nobody knows what the model costs."""
    if any(ledger.limits.dollars is not None for ledger in ledgers) and config.current_price() is None:
        raise ConfigurationError(
            f"a limit in dollars needs a price, and that of {config.name!r} is unknown: "
            "give its entry in models.yml a price: {input: …, output: …}, in USD per million tokens"
        )
