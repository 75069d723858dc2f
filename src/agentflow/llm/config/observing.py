"""What `observability:` and `audit:` of models.yml come to: the parts that record, made, started and closed together.

    registry.observe()     audit ─ logs ─ runs ─ metrics ─ Prometheus ─ OpenTelemetry ─ integrations ─ alerts
                           started in this order, closed in the other; one that cannot start closes those before it
                           what can be known beforehand (keys, secrets, extras) is checked before the first

    with registry.observe() as observing:
        await flow.run({"topic": "tides"})
        observing.metrics.snapshot()

A part is of the process, not of a registry: two registries that name the same file, port or collector share it, and it
is closed with the last of them. The end of the process closes what is open. Without a word in models.yml nothing is
written, opened or started.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
from msgspec import UNSET, Struct

from agentflow.clock import Clock
from agentflow.core.observability.observers import Observer, observe
from agentflow.core.observability.redaction.known_secrets import know_secret
from agentflow.errors import AgentFlowError, ConfigurationError, MissingExtraError, describe
from agentflow.llm.config.extras import EXTRAS, Extra
from agentflow.llm.config.integrations import integration
from agentflow.llm.config.keys import KeyRing
from agentflow.llm.config.loader import Configuration
from agentflow.llm.config.schema import set_fields
from agentflow.llm.config.shared_parts import lock, shared

if TYPE_CHECKING:
    from agentflow.core.observability.alerts import AlertManager
    from agentflow.core.observability.audit import AuditLog, AuditSettings, ContentCipher
    from agentflow.core.observability.metrics.collector import MetricsCollector
    from agentflow.core.observability.store import RunStore

__all__ = ["Observing"]

T = TypeVar("T")

_SYSTEMS: Final = ("prometheus", "opentelemetry")


class Observing:
    """The running parts. Each is None where models.yml does not turn it on, and before `start()`.

    `integrations` are the observers of other systems by name, `prometheus` and `opentelemetry` among them. Starting and
    closing twice is doing it once; what was closed can be started again.
    """

    def __init__(self, configuration: Configuration, keys: KeyRing, *, cwd: Path, clock: Clock) -> None:
        self._configuration = configuration
        self._keys = keys
        self._cwd = cwd
        self._clock = clock
        self._parts: ExitStack | None = None
        self._forget()

    def _forget(self) -> None:
        self.audit: AuditLog | None = None
        self.runs: RunStore | None = None
        self.metrics: MetricsCollector | None = None
        self.alerts: AlertManager | None = None
        self.integrations: dict[str, object] = {}

    @property
    def running(self) -> bool:
        return self._parts is not None

    # ---- what is wanted, running or not ----------------------------------------------------------------------

    @property
    def wants_runs(self) -> bool | None:
        """Whether models.yml wants runs to be kept; None where it says nothing of it."""
        said = self._configuration.observability.runs
        return None if said is UNSET else _on(said)

    @property
    def runs_path(self) -> Path | None:
        """The file in which they are to be kept; None where they are not."""
        said = self._configuration.observability.runs
        if not _on(said):
            return None
        from agentflow.core.observability.store import DEFAULT_PATH

        return _from(self._cwd, said if isinstance(said, str) else _fields(said).get("path", DEFAULT_PATH))

    @property
    def audit_settings(self) -> AuditSettings | None:
        """As the audit log takes them, with whole paths; None where there is no audit log."""
        if self._configuration.audit is None:
            return None
        from agentflow.core.observability.audit import read_settings

        with self._placed("audit"):
            settings = read_settings(cast("dict[str, object]", msgspec.to_builtins(self._configuration.audit)))
        anchor = None if settings.anchor is None else str(_from(self._cwd, settings.anchor))
        return replace(settings, path=str(_from(self._cwd, settings.path)), anchor=anchor)

    def audit_environment(self, name: str) -> Mapping[str, str]:
        """The variable of that name, from the environment or .env; what is in it is redacted from now on."""
        key = self._keys.find((name,))
        text = "" if key is None else key.reveal()
        for each in text.split(","):  # the current one and earlier ones
            know_secret(each)
        return {name: text} if text else {}

    @property
    def extras(self) -> Mapping[str, Extra]:
        """What is wanted that needs packages beside AgentFlow's own, by its section."""
        said, audit = self._configuration.observability, self._configuration.audit
        wanted = {f"observability.{name}": EXTRAS[name] for name in _SYSTEMS if _on(getattr(said, name))}
        return wanted | ({"audit.content": EXTRAS["aes_gcm"]} if audit and audit.content == "encrypted" else {})

    @property
    def _wanted(self) -> bool:
        said = self._configuration
        return said.audit is not None or any(map(_on, set_fields(said.observability).values()))

    def start(self, *, runs: bool = True) -> Observing:
        """Start what models.yml turns on; with `runs=False` no run is kept, whatever it says.

        Raises ConfigurationError with `file:line:column` for what cannot be started, MissingExtraError for what is not
        installed, and AuditError for an audit log that cannot be written and must be.
        """
        with lock():
            if self._parts is None:
                self._check()
                with ExitStack() as parts:
                    self._start(parts, runs)
                    self._parts = parts.pop_all()
                if self._wanted:
                    atexit.register(self.close)
        return self

    def close(self) -> None:
        """Let each part write what is left, and end."""
        with lock():
            parts, self._parts = self._parts, None
            if parts is not None:
                atexit.unregister(self.close)
                self._forget()
                parts.close()

    def __enter__(self) -> Observing:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self) -> None:
        """What a part would not start without, as far as it can be known beforehand."""
        for section, extra in self.extras.items():
            with self._placed(*section.split(".")):
                extra.require()
        with self._placed("audit"):
            if (settings := self.audit_settings) is not None:
                from agentflow.core.observability.audit import AuditKeys

                AuditKeys.from_environment(settings.key_env, self.audit_environment(settings.key_env))
        said = self._configuration.observability
        variable = _fields(said.opentelemetry).get("headers_env")
        if variable is not None and not os.environ.get(variable):
            path = ("observability", "opentelemetry", "headers_env")
            what = f"{'.'.join(path)}: the environment variable {variable} is not set"
            raise ConfigurationError(what, source=self._configuration.place(*path))
        alerts = said.alerts
        with self._placed("observability", "alerts"):
            if alerts is not UNSET and _on(alerts):
                from agentflow.llm.config.alerting import as_mapping, check

                check(as_mapping(alerts), self._clock)

    # ---- the parts, in their order ---------------------------------------------------------------------------

    def _start(self, parts: ExitStack, runs: bool) -> None:
        said = self._configuration.observability
        if self._configuration.audit is not None:
            self._audit(parts)
        if _on(said.logs):
            self._logs(parts, _fields(said.logs))
        if runs and self.runs_path is not None:
            self._runs(parts, self.runs_path, _fields(said.runs))
        if _on(said.metrics) or _on(said.prometheus) or _on(said.alerts):
            self._count(parts, _fields(said.metrics))
        for name in _SYSTEMS:
            if _on(getattr(said, name)):
                self._connect(parts, name, _fields(getattr(said, name)), name)
        for name, settings in ({} if said.integrations is UNSET else said.integrations).items():
            if settings is not False:
                self._connect(parts, name, settings if isinstance(settings, dict) else {}, f"integrations.{name}")
        if _on(said.alerts):
            self._alert(parts)

    def _audit(self, parts: ExitStack) -> None:
        from agentflow.core.observability.audit import AuditAction, open_audit, use_audit

        settings = self.audit_settings
        assert settings is not None
        environ = self.audit_environment(settings.key_env)

        @contextmanager
        def auditing() -> Iterator[AuditLog]:
            with open_audit(settings, environ, cipher=_cipher(settings), clock=self._clock) as log, use_audit(log):
                yield log

        with self._placed("audit"):
            self.audit = parts.enter_context(shared(("audit", settings.path), auditing))
        for layer in self._configuration.layers:
            text = layer.text.encode("utf-8", "surrogatepass")
            facts = {"sha256": sha256(text).hexdigest(), "bytes": len(text)}
            self.audit.record(AuditAction.CONFIG_LOADED, resource=layer.source, data=facts)

    def _logs(self, parts: ExitStack, said: Mapping[str, Any]) -> None:
        from agentflow.core.observability.logs.run_log import RunLog
        from agentflow.core.observability.logs.setup import configure_logging

        as_json, level = said.get("json", False), said.get("level", "INFO")
        parts.enter_context(shared(("logs", as_json, level), lambda: configure_logging(json=as_json, level=level)))
        if said.get("runs", True):
            parts.enter_context(shared(("run log",), lambda: observe(RunLog())))

    def _runs(self, parts: ExitStack, path: Path, said: Mapping[str, Any]) -> None:
        from agentflow.core.observability.store import RunStore

        more = {name: value for name, value in said.items() if name != "path"}

        @contextmanager
        def kept() -> Iterator[RunStore]:
            with RunStore(path, clock=self._clock, **more) as store, observe(store):
                yield store

        with self._placed("observability", "runs"):
            self.runs = parts.enter_context(shared(("runs", path), kept))

    def _count(self, parts: ExitStack, said: Mapping[str, Any]) -> None:
        from agentflow.core.observability.metrics.collector import MetricsCollector

        @contextmanager
        def counting() -> Iterator[MetricsCollector]:
            metrics = MetricsCollector(clock=self._clock, **said)
            with observe(metrics):
                yield metrics

        self.metrics = parts.enter_context(shared(("metrics",), counting))

    def _connect(self, parts: ExitStack, name: str, said: Mapping[str, Any], field: str) -> None:
        """Another system: an observer, or (Prometheus) something that shows what the collector counts."""
        place = ("observability", *field.split(".", 1))

        @contextmanager
        def connected() -> Iterator[object]:
            make = integration(name, f"observability.{field}")
            made = make(dict(said), metrics=self.metrics) if name == "prometheus" else make(dict(said))
            with ExitStack() as stack:
                stack.callback(getattr(made, "close", _nothing))
                if callable(getattr(made, "observe", None)):
                    stack.enter_context(observe(cast("Observer", made)))
                elif name != "prometheus":
                    raise ConfigurationError(
                        f"the integration {name!r} is no observer: it has no method observe(event)"
                    )
                yield made

        with self._placed(*place):
            self.integrations[name] = parts.enter_context(shared((name, *_identity(name, said)), connected))

    def _alert(self, parts: ExitStack) -> None:
        from agentflow.llm.config.alerting import AlertThread, as_mapping

        alerts, metrics = self._configuration.observability.alerts, self.metrics
        assert alerts is not UNSET
        assert metrics is not None
        said = as_mapping(alerts)

        @contextmanager
        def watching() -> Iterator[AlertManager]:
            thread = AlertThread.of(said, metrics, self._clock)
            try:
                yield thread.manager
            finally:
                thread.close()

        with self._placed("observability", "alerts"):
            self.alerts = parts.enter_context(shared(("alerts", msgspec.json.encode(said)), watching))

    @contextmanager
    def _placed(self, *path: str) -> Iterator[None]:
        """An error of a part says where in models.yml it was turned on."""
        try:
            yield
        except MissingExtraError as error:
            if error.source is not None:
                raise
            source = self._configuration.place(*path)
            raise MissingExtraError(error.feature, error.extra, source=source) from error
        except ConfigurationError as error:
            if error.source is not None or type(error) is not ConfigurationError:
                raise
            raise ConfigurationError(str(error), source=self._configuration.place(*path)) from error
        except AgentFlowError:
            raise
        except Exception as error:
            what = f"{'.'.join(path)} cannot be started: {describe(error)}"
            raise ConfigurationError(what, source=self._configuration.place(*path)) from error


# ---- what a section says -------------------------------------------------------------------------------------


def _from(cwd: Path, named: str) -> Path:
    return (cwd / Path(named).expanduser()).absolute()


def _cipher(settings: AuditSettings) -> ContentCipher | None:
    if settings.content != "encrypted":
        return None
    return cast("ContentCipher", integration("aes_gcm", "audit.content")({}))


def _on(said: object) -> bool:
    return said is not UNSET and said is not False and said is not None and said != []


def _fields(said: object) -> dict[str, Any]:
    """What a mapping sets; of `true`, a text or nothing, nothing."""
    return set_fields(said) if isinstance(said, Struct) else {}


def _nothing() -> None:
    """What has no `close` needs none."""


def _identity(name: str, said: Mapping[str, Any]) -> tuple[Hashable, ...]:
    """What two sections must agree in to mean one and the same."""
    if name == "prometheus":
        return said.get("host", "127.0.0.1"), said.get("port", 9464)
    return (msgspec.json.encode(said, order="deterministic"),)
