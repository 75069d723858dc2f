"""The shape of models.yml: what is refused, in which words, and how entries are laid over each other."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from agentflow.errors import ConfigurationError
from agentflow.llm.config.loader import read_layer
from agentflow.llm.config.schema import Document, ModelEntry, Phases, ProviderEntry, Retry, checked, overlay, problems


def refusal(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read_layer("m.yml", text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "models:\n  a:\n    provider: openai\n    temperature: 3\n",
            "m.yml:4:5: models.a.temperature: found 3, allowed is a number from 0 to 2 or null",
        ),
        ("models: {a: {top_p: -0.1}}", "models.a.top_p: found -0.1, allowed is a number from 0 to 1 or null"),
        ("models: {a: {max_tokens: 0}}", "models.a.max_tokens: found 0, allowed is a whole number, 1 or more or null"),
        ("models: {a: {max_tokens: 1.5}}", "models.a.max_tokens: found 1.5, allowed is a whole number"),
        ("models: {a: {temperature: true}}", "models.a.temperature: found true, allowed is a number"),
        ("models: {a: {temperature: '1'}}", "models.a.temperature: found '1', allowed is a number"),
        ("defaults: {timeout: 0}", "defaults.timeout: found 0, allowed is a number above 0 and at most 604800"),
        ("defaults: {timeout: {idle: -1}}", "m.yml:1:22: defaults.timeout.idle: found -1, allowed is a number above 0"),
        (
            "defaults: {retry: {max_attempts: 0}}",
            "defaults.retry.max_attempts: found 0, allowed is a whole number, 1 or",
        ),
        (
            "defaults: {retry: {jitter: some}}",
            "defaults.retry.jitter: found 'some', allowed is decorrelated or equal or full or none",
        ),
        ("models: {a: {timeout: {total: 5}}}", "models.a.timeout: found a mapping, allowed is a number above 0"),
        ("models: {a: {stop: [x, 3]}}", "models.a.stop.1: found 3, allowed is a text"),
        ("models: {a: {router: {quality_floor: 0.9}}}", "models.a.router: the field candidates is missing"),
        ("providers: {p: {headers: {x-team: 3}}}", "providers.p.headers.x-team: found 3, allowed is a text"),
        ("providers: {p: {allow_http: 'yes'}}", "providers.p.allow_http: found 'yes', allowed is true or false"),
        (
            "providers:\n  p:\n    client_cert: [a.pem]\n",
            "m.yml:3:5: providers.p.client_cert: found a list, allowed is a list of 2, each a text",
        ),
        ("providers: {p: {client_cert: [a, b, c]}}", "providers.p.client_cert: found a list, allowed is"),
        (
            "providers: {p: {query: {api-version: 2024}}}",
            "providers.p.query.api-version: found 2024, allowed is a text",
        ),
        (
            "providers: {p: {max_connections: 0}}",
            "providers.p.max_connections: found 0, allowed is a whole number, 1 or",
        ),
        (
            "providers: {p: {dialect: openia}}",
            "providers.p.dialect: found 'openia', allowed is azure or cerebras or compat",
        ),
        ("providers: {p: {prices: nobody}}", "providers.p.prices: found 'nobody', allowed is anthropic or cerebras or"),
        ("models: {a: {api: chats}}", "models.a.api: found 'chats', allowed is chat or responses"),
        (
            "models:\n  a:\n    capabilities: [image, vision]\n",
            "m.yml:3:27: models.a.capabilities.1: found 'vision', allowed is audio or document or embed or image",
        ),
        ("models: {a: {context: -1}}", "models.a.context: found -1, allowed is a whole number, 1 or more"),
        (
            "models: {a: {price: {output: 1}}}",
            "m.yml:1:14: models.a.price: the field input is missing; it holds a number",
        ),
        ("models: {a: {price: {input: -1}}}", "models.a.price.input: found -1, allowed is a number, 0 or more"),
        ("models: {a: {price: 3}}", "models.a.price: found 3, allowed is a mapping of input, output, cached"),
        (
            "models: {a: {thinking: {budget: -1}}}",
            "models.a.thinking.budget: found -1, allowed is a whole number, 0 or",
        ),
        ("models: {a: {top_k: 0}}", "models.a.top_k: found 0, allowed is a whole number, 1 or more"),
        ("models: [a, b]", "models: found a list, allowed is a mapping"),
        ("models: {a: gpt-4o}", "models.a: found 'gpt-4o', allowed is a mapping of provider, model_id"),
        ("- a", "m.yml:1:1: found a list, allowed is a mapping of updated, defaults, providers, models"),
    ],
)
def test_a_misfit_is_told_with_place_path_finding_and_what_is_allowed(text: str, message: str) -> None:
    assert message in str(refusal(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modells: {}", "m.yml:1:1: modells: unknown field; did you mean models?"),
        (
            "models:\n  a:\n    temprature: 1\n",
            "m.yml:3:5: models.a.temprature: unknown field; did you mean temperature?",
        ),
        (
            "models: {a: {retry: {max_attempt: 1}}}",
            "models.a.retry.max_attempt: unknown field; did you mean max_attempts?",
        ),
        ("providers: {p: {zzz: 1}}", "providers.p.zzz: unknown field; known are kind, base_url"),
    ],
)
def test_an_unknown_field_is_told_with_the_nearest_known_one(text: str, message: str) -> None:
    assert message in str(refusal(text))


def test_the_source_of_an_error_is_a_fact_of_its_own() -> None:
    assert refusal("models:\n  a: {seed: x}\n").source == "m.yml:2:7"


def test_further_misfits_are_counted() -> None:
    assert str(refusal("models: {a: {seed: x, top_p: 9}, b: {seed: y}}")).endswith("(and 2 more)")


@pytest.mark.parametrize(
    "address", ["https://user:hunter2@host/v1", "ftp://host", "host/v1", "https://h/v1?key=hunter2"]
)
def test_a_bad_address_is_refused_without_repeating_it(address: str) -> None:
    message = str(refusal(f"providers: {{p: {{base_url: '{address}'}}}}"))
    assert "providers.p.base_url" in message
    assert address not in message
    assert "hunter2" not in message


@pytest.mark.parametrize("proxy", ["http://me:hunter2@proxy:8080", "socks5://proxy", "http://proxy/path?hunter2"])
def test_a_proxy_is_an_address_without_password(proxy: str) -> None:
    message = str(refusal(f"providers: {{p: {{proxy: '{proxy}'}}}}"))
    assert "providers.p.proxy: found something else, allowed is an http:// or https:// address" in message
    assert "hunter2" not in message


def test_what_a_provider_may_say() -> None:
    layer = read_layer(
        "m.yml",
        """
providers:
  azure:
    kind: openai
    dialect: azure
    base_url: https://acme.openai.azure.com/openai/v1
    api_key_env: AZURE_OPENAI_API_KEY
    auth_header: api-key
    query: {api-version: preview}
    organization: org-1
    project: proj-1
    proxy: http://proxy.example:3128
    ca_bundle: /etc/ssl/acme.pem
    client_cert: [client.pem, client.key]
    max_connections: 8
    prices: openai
models:
  mine:
    provider: azure
    api: responses
    top_k: 40
    thinking: {effort: low, show: true}
    capabilities: [image, tools]
    context: 128000
    max_output: 16384
    price: {input: 0.5, output: 1.5, cached: 0.1, batch: 0.5}
""",
    )
    assert layer.document.models is not None
    assert layer.document.providers is not None


def test_sections_and_entries_with_nothing_in_them_are_allowed() -> None:
    layer = read_layer("m.yml", "defaults:\nproviders:\n  openai:\nmodels:\n")
    assert layer.document.models is None
    assert layer.document.providers == {"openai": None}


SHAPED = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-3, 3)
    | st.sampled_from(["x", "", "full", "OPENAI_API_KEY"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                "temperature retry timeout max_attempts router candidates stop total zz client_cert price input "
                "capabilities thinking query dialect".split()
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional={"models": SHAPED, "defaults": SHAPED, "providers": SHAPED}))
def test_the_walk_finds_a_problem_exactly_where_msgspec_refuses(data: dict[str, object]) -> None:
    """Otherwise an error would have no place, or a valid file an error."""
    try:
        msgspec.convert(data, Document)
    except msgspec.ValidationError:
        assert list(problems(data))
    else:
        assert not list(problems(data))


def test_overlay_keeps_what_the_upper_entry_leaves_out() -> None:
    base = ModelEntry(provider="openai", temperature=0.7, stop=["a"])
    assert overlay(base, ModelEntry(temperature=None, top_p=0.5)) == ModelEntry(
        provider="openai", temperature=None, top_p=0.5, stop=["a"]
    )


def test_overlay_goes_into_retry_and_time_outs() -> None:
    base = ProviderEntry(retry=Retry(max_attempts=5, base_delay=1.0), timeout=Phases(connect=3.0, total=60.0))
    merged = overlay(base, ProviderEntry(retry=Retry(max_attempts=2), timeout=9.0))
    assert merged.retry == Retry(max_attempts=2, base_delay=1.0)
    assert merged.timeout == Phases(connect=3.0, total=9.0)
    assert overlay(ProviderEntry(timeout=9.0), ProviderEntry(timeout=Phases(idle=1.0))).timeout == Phases(
        idle=1.0, total=9.0
    )


ENTRIES = st.builds(
    ModelEntry,
    provider=st.sampled_from([UNSET, "a", "b"]),
    temperature=st.sampled_from([UNSET, None, 0.1, 0.2]),
    retry=st.sampled_from([UNSET, Retry(max_attempts=1), Retry(base_delay=2.0), Retry(max_attempts=3, max_delay=1.0)]),
)


@given(ENTRIES, ENTRIES, ENTRIES)
def test_overlay_is_associative_with_the_empty_entry_as_its_unit(a: ModelEntry, b: ModelEntry, c: ModelEntry) -> None:
    assert overlay(overlay(a, b), c) == overlay(a, overlay(b, c))
    assert overlay(a, ModelEntry()) == a == overlay(ModelEntry(), a)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", float("nan")),
        ("temperature", 2.01),
        ("top_p", True),
        ("max_tokens", "5"),
        ("timeout", float("inf")),
    ],
)
def test_checked_refuses_what_models_yml_would_refuse(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name}: found .*, allowed is a"):
        checked(name, value)


def test_checking_a_file_leaves_memory_whole() -> None:
    """msgspec crashes the garbage collector over some unions of a text and a container; the debug allocator tells."""
    code = (
        "import gc\n"
        "from agentflow.errors import ConfigurationError\n"
        "from agentflow.llm.config.loader import read_layer\n"
        "read_layer('m.yml', 'providers: {p: {api_key_env: [A_KEY], client_cert: a}, q: {api_key_env: B_KEY, '\n"
        "    'client_cert: [a, b]}}')\n"
        "try: read_layer('m.yml', 'providers: {p: {api_key_env: no}}')\n"
        "except ConfigurationError: print('refused')\n"
        "gc.collect()\n"
    )
    ended = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "refused\n"), ended.stderr
