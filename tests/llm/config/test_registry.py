"""From a model's name to its configuration and provider: look-up, suggestions, defaults, plug-ins."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentflow.core.robustness.retry import RetryPolicy
from agentflow.errors import ConfigurationError, MissingKeyError, UnknownModelError
from agentflow.llm.config import registry as registry_module
from agentflow.llm.config.registry import ModelRegistry
from agentflow.llm.messages import Thinking, Usage
from agentflow.llm.providers.base import LLMProvider, ProviderSettings, Timeouts
from agentflow.llm.providers.scripted import ScriptedProvider

EXAMPLE = """
defaults: {timeout: {idle: 20, total: 90}, retry: {max_attempts: 4}}
providers:
  echo: {kind: scripted, options: {answers: [one, two]}, timeout: {connect: 2}, retry: {base_delay: 0.1}}
  twin: {kind: scripted, options: {answers: [three]}, timeout: 5}
  lab: {kind: openai, base_url: "http://127.0.0.1:9/v1", headers: {x-team: search}, api_key_env: LAB_KEY}
models:
  first: {provider: echo, model_id: m1, temperature: 0.5, stop: END, params: {top_k: 3}, retry: {max_attempts: 2}}
  second: {provider: echo, timeout: 7, stop: [a, b]}
  lonely: {temperature: 1}
  lost: {provider: ecko}
"""


def registry(tmp_path: Path, text: str = EXAMPLE, **environ: str) -> ModelRegistry:
    (tmp_path / "models.yml").write_text(text)
    return ModelRegistry.load(environ=environ, cwd=tmp_path, home=tmp_path / "home")


def test_an_entry_is_resolved_over_provider_and_defaults(tmp_path: Path) -> None:
    config, provider = registry(tmp_path).resolve("first")
    assert (config.name, config.provider, config.model_id) == ("first", "echo", "m1")
    assert (config.temperature, config.stop, config.params, config.top_p) == (0.5, ("END",), {"top_k": 3}, None)
    assert config.retry == RetryPolicy(max_attempts=2, base_delay=0.1, max_delay=30)
    assert config.timeout == 90
    assert isinstance(provider, ScriptedProvider)


def test_a_models_own_limit_wins_over_its_providers(tmp_path: Path) -> None:
    models = registry(tmp_path)
    assert models.describe("second").timeout == 7
    assert models.describe("second").stop == ("a", "b")
    assert models.describe("twin/any").timeout == 5
    assert models.settings("echo").timeouts == Timeouts(connect=2, idle=20, total=90)
    assert models.settings("twin").timeouts == Timeouts(connect=10, idle=20, total=5)


def test_models_of_one_provider_share_one_instance(tmp_path: Path) -> None:
    models = registry(tmp_path)
    assert models.resolve("first")[1] is models.resolve("second")[1] is models.resolve("echo/other")[1]
    assert models.resolve("first")[1] is not models.resolve("twin/x")[1]


def test_settings_carry_address_headers_and_a_key_that_does_not_show(tmp_path: Path) -> None:
    settings = registry(tmp_path, LAB_KEY="sentinel-0123").settings("lab")
    assert (settings.kind, settings.base_url, settings.headers) == (
        "openai",
        "http://127.0.0.1:9/v1",
        {"x-team": "search"},
    )
    assert settings.api_key is not None
    assert settings.api_key.reveal() == "sentinel-0123"
    assert "sentinel" not in repr(settings)


def test_keys_are_found_in_the_projects_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LAB_KEY=from-dotenv\n")
    key = registry(tmp_path).settings("lab").api_key
    assert key is not None
    assert key.reveal() == "from-dotenv"


async def test_a_provider_without_its_key_is_an_error_only_when_it_is_used(tmp_path: Path) -> None:
    models = registry(tmp_path)
    assert models.describe("lab/x").provider == "lab"
    assert models.key_found("lab") is False
    assert models.key_found("echo") is None
    with pytest.raises(MissingKeyError, match="set LAB_KEY in the environment"):
        models.resolve("lab/x")


def test_provider_slash_model_needs_no_entry(tmp_path: Path) -> None:
    config = registry(tmp_path).describe("ollama/library/llama3.2")
    assert (config.provider, config.model_id) == ("ollama", "library/llama3.2")
    assert registry(tmp_path).settings("ollama").base_url == "http://127.0.0.1:11434/v1"


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("gpt-40", "gpt-4o"), ("frist", "first"), ("olama/llama3.2", "ollama/llama3.2"), ("local/extractiv", None)],
)
def test_an_unknown_model_is_an_error_with_the_nearest_names(tmp_path: Path, name: str, suggestion: str | None) -> None:
    models = registry(tmp_path)
    if suggestion is None:  # a known provider's own names are not ours to judge
        assert models.describe(name).model_id == "extractiv"
        return
    with pytest.raises(UnknownModelError) as caught:
        models.resolve(name)
    assert caught.value.suggestions[0] == suggestion
    assert f"did you mean {suggestion}" in str(caught.value)


@pytest.mark.parametrize("name", ["", "/", "echo/", "/x", "zzzzzz"])
def test_a_name_without_a_neighbour_points_to_the_list(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownModelError):
        registry(tmp_path).resolve(name)


def test_an_entry_that_cannot_work_says_where_it_stands(tmp_path: Path) -> None:
    models = registry(tmp_path)
    with pytest.raises(ConfigurationError, match=r"models\.yml:10:3: model 'lonely' names no provider"):
        models.resolve("lonely")
    with pytest.raises(ConfigurationError, match=r"models\.yml:11:3: model 'lost' .*'ecko'.*did you mean echo\?"):
        models.resolve("lost")


def test_an_unknown_kind_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    models = registry(tmp_path, "providers:\n  a: {kind: opeanai}\n  b: {}\n")
    with pytest.raises(
        ConfigurationError, match=r"models\.yml:2:3: provider 'a' has the unknown kind 'opeanai'; did you"
    ):
        models.resolve("a/x")
    with pytest.raises(
        ConfigurationError,
        match="unknown kind 'b'; known are anthropic, edge, google, local, moonshot, openai, scripted",
    ):
        models.resolve("b/x")


def test_switching_models_is_a_look_up(tmp_path: Path) -> None:
    """≤ 20 µs is the promise; a look-up in a dictionary is far below on any machine."""
    models = registry(tmp_path)
    for name in ("first", "second"):
        models.resolve(name)
    start = time.process_time()
    for _ in range(1000):
        models.resolve("first")
        models.resolve("second")
    assert (time.process_time() - start) / 2000 < 20e-6


def test_threads_that_ask_at_once_get_one_provider(tmp_path: Path) -> None:
    models = registry(tmp_path)
    built: list[LLMProvider] = []
    gate, second = threading.Barrier(8), threading.Barrier(2)

    def slow(settings: ProviderSettings) -> LLMProvider:
        with contextlib.suppress(threading.BrokenBarrierError):
            second.wait(0.05)  # time for another thread to come in, if it could
        built.append(ScriptedProvider([], name=settings.name))
        return built[-1]

    models.register_provider("slow", slow)
    threads = [threading.Thread(target=lambda: (gate.wait(), models.resolve("slow/x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_several_registries_share_nothing(tmp_path: Path) -> None:
    one, two = registry(tmp_path), registry(tmp_path)
    one.register_model("only-here", provider="echo")
    assert "only-here" in one.models()
    assert "only-here" not in two.models()
    assert one.resolve("first")[1] is not two.resolve("first")[1]


def test_a_registered_provider_serves_by_name_and_by_kind(tmp_path: Path) -> None:
    models = registry(tmp_path, "providers: {acme-eu: {kind: acme, base_url: 'https://eu.example/v1'}}")
    models.register_provider("acme", lambda settings: ScriptedProvider([], name=f"{settings.name}@{settings.base_url}"))
    assert models.resolve("acme/x")[1].name == "acme@None"
    assert models.resolve("acme-eu/x")[1].name == "acme-eu@https://eu.example/v1"


def test_registering_again_replaces_what_was_built(tmp_path: Path) -> None:
    models = registry(tmp_path)
    models.register_provider("acme", lambda _: ScriptedProvider([], name="old"))
    assert models.resolve("acme/x")[1].name == "old"
    models.register_provider("acme", lambda _: ScriptedProvider([], name="new"))
    assert models.resolve("acme/x")[1].name == "new"


def test_a_registered_model_is_checked_like_an_entry(tmp_path: Path) -> None:
    models = registry(tmp_path)
    models.register_model("third", provider="echo", model_id="m3", temperature=0.1, stop=["x"], params={"k": 1})
    config = models.describe("third")
    assert (config.model_id, config.temperature, config.stop, config.params) == ("m3", 0.1, ("x",), {"k": 1})
    with pytest.raises(ConfigurationError, match=r"models\.bad\.temperature: found 9, allowed is a number from 0 to 2"):
        models.register_model("bad", provider="echo", temperature=9)


def test_a_factory_that_returns_no_provider_is_told_so(tmp_path: Path) -> None:
    models = registry(tmp_path)
    models.register_provider("acme", lambda _: "hello")  # type: ignore[arg-type,return-value]  # the mistake
    with pytest.raises(ConfigurationError, match="returned a str, which is no LLMProvider"):
        models.resolve("acme/x")


# ---- the default ---------------------------------------------------------------------------------------------


def test_the_configured_default_wins_over_any_key(tmp_path: Path) -> None:
    default = registry(tmp_path, "defaults: {model: first}\n", OPENAI_API_KEY="k").default_model()
    assert (default.name, default.chosen) == ("first", True)


def test_else_the_first_provider_with_a_key_decides(tmp_path: Path) -> None:
    default = registry(tmp_path, "", MOONSHOT_KEY="k").default_model()
    assert (default.name, default.chosen) == ("kimi-k2.6", True)
    assert "moonshot" in default.reason
    assert registry(tmp_path, "", MOONSHOT_KEY="k", OPENAI_API_KEY="k").default_model().name == "gpt-4o-mini"


def test_a_provider_of_the_users_own_file_comes_before_the_built_in_ones(tmp_path: Path) -> None:
    text = "providers: {lab: {kind: openai, api_key_env: LAB_KEY}}\nmodels: {mine: {provider: lab}}"
    assert registry(tmp_path, text, OPENAI_API_KEY="k", LAB_KEY="k").default_model().name == "mine"


def test_without_a_key_the_offline_model_stands_in_and_says_how_to_change_that(tmp_path: Path) -> None:
    default = registry(tmp_path).default_model()
    assert (default.name, default.chosen) == ("local/extractive", False)
    assert "no API key found: using local/extractive" in default.reason
    assert "set OPENAI_API_KEY or run `agentflow init`" in default.reason
    assert "\n" not in default.reason


def test_the_offline_model_works_with_nothing_configured(tmp_path: Path) -> None:
    config, provider = registry(tmp_path, "").resolve("local/extractive")
    assert config.model_id == "extractive"
    assert provider.name == "local"


def test_what_was_set_as_default_wins_over_everything_and_must_exist(tmp_path: Path) -> None:
    models = registry(tmp_path, "defaults: {model: first}\n" + EXAMPLE.split("\n", 2)[2])
    models.set_default("second", "the command line says so")
    assert (models.default_model().name, models.default_model().reason) == ("second", "the command line says so")
    with pytest.raises(UnknownModelError):
        models.set_default("secnd")
    assert models.default_model().name == "second"


def test_a_provider_can_be_looked_at_without_its_key(tmp_path: Path) -> None:
    models = registry(tmp_path)
    assert (models.key_names("lab"), models.base_url("lab")) == (("LAB_KEY",), "http://127.0.0.1:9/v1")
    assert (models.key_names("local"), models.base_url("local")) == ((), None)
    assert models.providers()[:3] == ("echo", "twin", "lab")


# ---- what a provider and a model may say ---------------------------------------------------------------------

AZURE = """
providers:
  azure:
    kind: openai
    dialect: azure
    base_url: https://acme.openai.azure.com/openai/v1
    auth_header: api-key
    query: {api-version: preview}
    organization: org-1
    project: proj-1
    proxy: "http://proxy.example:3128"
    ca_bundle: ~/acme.pem
    client_cert: [client.pem, client.key]
    max_connections: 8
    options: {max_tokens_field: max_tokens}
  echo: {kind: scripted}
models:
  mine:
    provider: echo
    top_k: 40
    thinking: {effort: low, show: true}
    capabilities: [image, tools]
    context: 128000
    max_output: 16384
    price: {input: 0.5, output: 1.5, cached: 0.1, batch: 0.5}
  bare: {provider: echo}
"""


def test_a_providers_fields_reach_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    settings = registry(tmp_path, AZURE).settings("azure")
    assert (settings.auth_header, settings.query) == ("api-key", {"api-version": "preview"})
    assert (settings.proxy, settings.ca_bundle) == ("http://proxy.example:3128", "/home/me/acme.pem")
    assert settings.client_cert == ("client.pem", "client.key")
    assert settings.options == {
        "max_tokens_field": "max_tokens",
        "dialect": "azure",
        "organization": "org-1",
        "project": "proj-1",
        "max_connections": 8,
    }


def test_a_models_fields_reach_its_configuration(tmp_path: Path) -> None:
    models = registry(tmp_path, AZURE)
    config = models.describe("mine")
    assert (config.top_k, config.thinking) == (40, Thinking(effort="low", show=True))
    assert (config.capabilities, config.context, config.max_output) == ({"image", "tools"}, 128000, 16384)
    assert config.cost(Usage(1000, 100, cached_tokens=400)) == pytest.approx((600 * 0.5 + 400 * 0.1 + 150) / 1e6)
    assert config.cost(Usage(1000, 0), batch=True) == pytest.approx(250 / 1e6)
    bare = models.describe("bare")
    assert (bare.api, bare.top_k, bare.thinking, bare.capabilities, bare.context, bare.price) == (None,) * 6


def test_models_are_listed_by_what_they_can_do(tmp_path: Path) -> None:
    models = registry(tmp_path, AZURE)
    assert models.models_with("image")[:2] == ("mine", "gpt-4o-mini")
    assert "text-embedding-3-small" in models.models_with("embed")
    assert "bare" not in models.models_with("tools")


def test_what_is_known_of_a_model_holds_by_every_name_of_it(tmp_path: Path) -> None:
    """An alias, `provider/model` and a snapshot can do what the model can; what an entry says itself wins."""
    models = registry(
        tmp_path,
        "models:\n  alias: {provider: openai, model_id: gpt-4o, temperature: 0.1}\n"
        "  blind: {provider: openai, model_id: gpt-4o, capabilities: [], max_output: null}\n"
        "  gpt-4o: {temperature: 0.9}\n",
    )
    facts = [
        (config.capabilities, config.context, config.max_output)
        for name in ("gpt-4o", "alias", "openai/gpt-4o", "openai/gpt-4o-2024-08-06", "openai/models/GPT-4o")
        for config in [models.describe(name)]
    ]
    assert facts == [(frozenset({"image", "document", "tools", "schema"}), 128000, 16384)] * 5
    assert models.describe("openai/gpt-6-luna").api == "responses"
    assert (models.describe("alias").temperature, models.describe("openai/gpt-4o").temperature) == (0.1, None)
    blind = models.describe("blind")
    assert (blind.capabilities, blind.max_output, blind.context) == (frozenset(), None, 128000)
    assert models.describe("ollama/gpt-4o").capabilities is None
    models.register_model("new-one", provider="openai", context=7)
    assert models.describe("openai/new-one-2027-01-01").context == 7


def test_a_registered_model_may_say_the_same(tmp_path: Path) -> None:
    models = registry(tmp_path, AZURE)
    models.register_model(
        "code",
        provider="echo",
        capabilities=["audio"],
        context=9,
        max_output=3,
        price={"input": 1},
        thinking={"budget": 5},
    )
    config = models.describe("code")
    assert (config.capabilities, config.context, config.max_output) == ({"audio"}, 9, 3)
    assert (config.cost(Usage(10)), config.thinking) == (pytest.approx(1e-5), Thinking(budget=5))
    with pytest.raises(ConfigurationError, match=r"models\.bad\.capabilities\.0: found 'vision'"):
        models.register_model("bad", provider="echo", capabilities=["vision"])


def test_each_api_of_a_provider_has_an_object_of_its_own(tmp_path: Path) -> None:
    """OpenAI's two APIs share an entry, a key and an address; which one is asked is said when it is built."""
    models = registry(
        tmp_path,
        "providers: {lab: {kind: lab, options: {x: 1}}, new: {kind: lab, options: {api: responses}}}\n"
        "models:\n  a: {provider: lab}\n  b: {provider: lab, api: chat}\n  c: {provider: lab, api: responses}\n"
        "  d: {provider: lab, api: responses}\n  e: {provider: new}\n  f: {provider: new, api: chat}\n",
    )
    built: list[ProviderSettings] = []
    models.register_provider("lab", lambda settings: built.append(settings) or ScriptedProvider([]))  # type: ignore[func-returns-value]
    found = {name: models.resolve(name)[1] for name in "abcdef"}
    assert found["a"] is found["b"] is models.provider("lab")
    assert found["c"] is found["d"]
    assert found["a"] is not found["c"]
    assert [settings.options for settings in built] == [
        {"x": 1}, {"x": 1, "api": "responses"}, {"api": "responses"}, {"api": "chat"},
    ]  # fmt: skip
    assert models.describe("c").api == "responses"


def test_an_api_that_a_kind_does_not_speak_is_an_error_with_its_place(tmp_path: Path) -> None:
    models = registry(tmp_path, "models:\n  odd: {provider: local, api: responses}\n")
    with pytest.raises(
        ConfigurationError, match=r"models\.yml:2:3: model 'odd' has `api: responses`, which a provider of"
    ):
        models.resolve("odd")


@pytest.mark.parametrize(
    ("entry", "owner"),
    [
        ("openai: {}", "openai"),
        ("openai: {base_url: 'https://gateway.example/v1'}", "openai"),
        ("mine: {kind: openai}", "openai"),
        ("mine: {kind: openai, base_url: 'https://api.openai.com/v1'}", "openai"),
        ("mine: {kind: openai, base_url: 'https://api.groq.com/openai/v1'}", "groq"),
        ("mine: {kind: google, base_url: 'https://europe-west4-aiplatform.googleapis.com/v1'}", "google"),
        ("mine: {kind: openai, base_url: 'http://127.0.0.1:8000/v1'}", None),
        ("mine: {kind: openai, base_url: 'http://127.0.0.1:8000/v1', prices: openai}", "openai"),
        ("moonshot: {base_url: 'https://api.moonshot.cn/v1'}", None),
        ("mine: {kind: scripted}", None),
    ],
)
def test_whose_prices_hold_follows_the_address(tmp_path: Path, entry: str, owner: str | None) -> None:
    """A server that merely speaks OpenAI's API does not charge OpenAI's prices."""
    provider = entry.split(":")[0]
    assert registry(tmp_path, f"providers: {{{entry}}}").describe(f"{provider}/gpt-4o").price_list == owner


def test_a_cost_goes_by_the_model_that_answered(tmp_path: Path) -> None:
    config = registry(tmp_path, "").describe("openai/gpt-4o")
    usage = Usage(1_000_000)
    assert config.cost(usage) == config.cost(usage, model="gpt-4o-2024-08-06") == 2.5
    assert config.cost(usage, model="gpt-4o-2024-05-13") == 5.0
    assert config.cost(usage, model="a-name-of-their-own") == 2.5
    assert config.cost(usage, service_tier="scale") is None
    assert registry(tmp_path, "").describe("ollama/gpt-4o").cost(usage) is None


def test_a_source_of_tokens_takes_the_place_of_a_key(tmp_path: Path) -> None:
    models = registry(tmp_path)
    with pytest.raises(MissingKeyError):
        models.settings("lab")
    models.set_token("lab", lambda: "fresh")
    settings = models.settings("lab")
    assert settings.api_key is None
    assert settings.token is not None
    assert settings.token() == "fresh"
    assert (models.key_found("lab"), models.key_names("lab")) == (None, ())
    with pytest.raises(
        ConfigurationError, match="provider 'lbb' is asked for, which is not configured; did you mean lab"
    ):
        models.set_token("lbb", lambda: "fresh")


def test_a_source_of_tokens_replaces_what_was_built(tmp_path: Path) -> None:
    models = registry(tmp_path)
    before = models.resolve("first")[1]
    models.set_token("echo", lambda: "fresh")
    assert models.resolve("first")[1] is not before


def test_what_would_fail_only_when_used_can_be_asked_for(tmp_path: Path) -> None:
    """A wrong kind, an orphaned model and a broken .env are no errors while loading, since code may still help."""
    (tmp_path / ".env").write_text("A='open\n")
    models = registry(
        tmp_path,
        "providers: {a: {kind: opeanai}, b: {kind: acme}}\n"
        "models:\n  lost: {provider: ecko}\n  lonely: {}\n  odd: {provider: anthropic, api: responses}\n",
    )
    models.register_provider("acme", lambda _: ScriptedProvider([]))
    told = list(models.problems())
    assert [told_.split(": ")[0].split("/")[-1] for told_ in told] == [
        "models.yml:1:13", "models.yml:3:3", "models.yml:4:3", "models.yml:5:3", ".env:1",
    ]  # fmt: skip
    assert "unknown kind 'opeanai'; did you mean openai?" in told[0]


def test_the_built_in_file_has_no_problems(tmp_path: Path) -> None:
    models = registry(tmp_path, "")
    assert list(models.problems()) == list(models.remarks()) == []
    (tmp_path / ".env").write_text("OPENAI_API_KEY sk\n")
    assert [line.split(": ")[0].split("/")[-1] for line in registry(tmp_path, "").remarks()] == [".env:1"]


@pytest.mark.parametrize("kind", ["openai", "anthropic", "google", "moonshot", "local"])
def test_every_built_in_kind_can_be_built(tmp_path: Path, kind: str) -> None:
    keys = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k", "MOONSHOT_API_KEY": "k"}
    assert registry(tmp_path, "", **keys).provider(kind).name == kind


# ---- closing -------------------------------------------------------------------------------------------------


class Closable(ScriptedProvider):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


async def test_aclose_closes_what_was_built_and_the_registry_goes_on(tmp_path: Path) -> None:
    models = registry(tmp_path)
    models.register_provider("acme", lambda _: Closable([]))
    first = models.resolve("acme/x")[1]
    await models.aclose()
    await models.aclose()
    assert isinstance(first, Closable)
    assert first.closed == 1
    assert models.resolve("acme/x")[1] is not first


class Closing(ScriptedProvider):
    """Notes that it was closed, and fails at it if told to."""

    def __init__(self, name: str, closed: list[str], error: Exception | None = None) -> None:
        super().__init__(["hi"], name=name)
        self.closed, self.error = closed, error

    async def aclose(self) -> None:
        self.closed.append(self.name)
        if self.error is not None:
            raise self.error


async def test_a_provider_that_does_not_close_keeps_no_other_one_open(tmp_path: Path) -> None:
    """Its error is raised when all are closed."""
    models = registry(tmp_path)
    closed: list[str] = []
    errors = {"b": RuntimeError("stuck")}
    for name in ("a", "b", "c"):
        models.register_provider(name, lambda settings: Closing(settings.name, closed, errors.get(settings.name)))
        models.provider(name)
    with pytest.raises(RuntimeError, match="stuck"):
        await models.aclose()
    assert closed == ["a", "b", "c"]
    await models.aclose()
    assert closed == ["a", "b", "c"]


def test_what_is_registered_of_a_model_holds_for_its_other_names_at_once(tmp_path: Path) -> None:
    """Also for those that were resolved before."""
    models = registry(tmp_path)
    models.register_model("m9", provider="echo", context=1_000)
    assert models.resolve("echo/m9-2025-01-01")[0].context == 1_000
    models.register_model("m9", provider="echo", context=2_000)
    assert models.resolve("echo/m9-2025-01-01")[0].context == 2_000
    assert models.describe("echo/m9").context == 2_000


def test_names_that_somebody_makes_up_do_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_MOST_NAMES", 10)
    models = registry(tmp_path)
    for number in range(100):
        models.resolve(f"echo/m{number}")
        assert len(models._resolved) <= 10  # pyright: ignore[reportPrivateUsage]


def test_models_may_be_registered_while_others_are_read(tmp_path: Path) -> None:
    """Whoever lists models sees those of one moment, and no thread stumbles over another."""
    models = registry(tmp_path)
    listing = models.problems()
    next(listing)
    failures: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                models.models_with("tools")
                models.describe("echo/made-up")
                models.suggestions("secnod")
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for number in range(100):
        models.register_model(f"new-{number}", provider="echo", capabilities=["tools"])
        models.register_provider(f"lab-{number}", lambda _: ScriptedProvider(["hi"]))
    done.set()
    for thread in readers:
        thread.join()
    list(listing)
    assert failures == []
    assert "new-99" in models.models_with("tools")


# ---- plug-ins ------------------------------------------------------------------------------------------------

PLUGIN = """
from agentflow.llm.providers.scripted import ScriptedProvider

def make(settings):
    return ScriptedProvider(["from the plug-in"], name=settings.name)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real, tiny distribution on the path: a module and its metadata, as pip would lay them down."""
    site = tmp_path / "site"
    info = site / "toy_provider-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "toy_provider.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-provider\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[agentflow.providers]\ntoy = toy_provider:make\nbroken = toy_provider:nothing\n"
    )
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("toy_provider", None)


@pytest.mark.usefixtures("installed")
async def test_an_installed_package_adds_a_kind_of_provider(tmp_path: Path) -> None:
    from agentflow.llm.agentflow import AgentFlow

    models = registry(tmp_path, "providers: {mine: {kind: toy}}")
    assert await AgentFlow.model("mine/x", registry=models).prompt("Hi").execute() == "from the plug-in"
    assert models.resolve("toy/x")[1].name == "toy"
    models.register_provider("toy", lambda _: ScriptedProvider([], name="instead"))
    assert models.resolve("toy/x")[1].name == models.resolve("mine/x")[1].name == "instead"


@pytest.mark.usefixtures("installed")
def test_a_plug_in_that_does_not_load_is_named(tmp_path: Path) -> None:
    models = registry(tmp_path, "providers: {mine: {kind: broken}}")
    with pytest.raises(ConfigurationError, match="the plug-in toy_provider:nothing of kind 'broken' does not load"):
        models.resolve("mine/x")


@pytest.mark.usefixtures("installed")
def test_a_misspelled_kind_suggests_a_plug_in_too(tmp_path: Path) -> None:
    models = registry(tmp_path, "providers: {mine: {kind: tooy}}")
    with pytest.raises(ConfigurationError, match="did you mean toy"):
        models.resolve("mine/x")


def test_loading_builds_no_provider(tmp_path: Path) -> None:
    """So an unused provider needs no key, no import and no connection."""
    models = registry(tmp_path)
    built: list[str] = []
    models.register_provider("acme", lambda settings: built.append(settings.name) or ScriptedProvider([]))  # type: ignore[func-returns-value]
    models.describe("acme/x")
    assert not built
    asyncio.run(models.aclose())
    assert not built


def test_what_was_added_can_be_taken_away(tmp_path: Path) -> None:
    models = registry(tmp_path)
    models.register_provider("acme", lambda settings: ScriptedProvider(["hello"], name=settings.name))
    models.register_model("extra", provider="acme")
    assert models.resolve("extra")[0].provider == "acme"
    models.remove_model("extra")
    models.remove_provider("acme")
    models.remove_provider("acme")
    for name in ("extra", "acme/x"):
        with pytest.raises(UnknownModelError):
            models.resolve(name)
    with pytest.raises(UnknownModelError):
        models.remove_model("extra")
    assert models.resolve("second")[0].model_id == "second"


def test_paths_of_options_count_from_the_file_that_says_them(tmp_path: Path) -> None:
    """Of the strongest that does; else from the working folder."""
    there = tmp_path / "there"
    there.mkdir()
    (there / "more.yml").write_text("providers: {echo: {options: {answers: [four]}}, twin: {timeout: 4}}")
    (tmp_path / "models.yml").write_text(EXAMPLE)
    models = ModelRegistry.load(there / "more.yml", environ={"LAB_KEY": "k"}, cwd=tmp_path, home=tmp_path / "home")
    assert models.settings("echo").folder == there
    assert models.settings("twin").folder == tmp_path
    assert models.settings("lab").folder == tmp_path
