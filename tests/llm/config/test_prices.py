"""What a call costs: never a guess, never 0 for unknown, and the same as genai-prices says where it knows."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from importlib import metadata, resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.llm.config.model_ids import spellings
from agentflow.llm.config.prices import Price, PriceTable, Rates
from agentflow.llm.config.schema import PRICE_LISTS
from agentflow.llm.messages import Usage

TABLE = PriceTable.built_in()
WHEN = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
MILLION = 1_000_000


def cost(provider: str, model: str, usage: Usage, **options: object) -> float | None:
    return TABLE.cost(provider, model, usage, **{"when": WHEN, **options})  # type: ignore[arg-type]


# ---- the table -----------------------------------------------------------------------------------------------


def test_the_table_says_whose_data_it_is_and_of_which_day() -> None:
    assert re.fullmatch(r"genai-prices \d[\d.]*", TABLE.source)
    assert datetime.fromisoformat(TABLE.updated).year >= 2026


def test_every_price_list_that_models_yml_may_name_is_there() -> None:
    assert set(TABLE.providers) == set(PRICE_LISTS)


def test_the_table_is_small() -> None:
    assert len(resources.files("agentflow.llm.config").joinpath("prices.json").read_bytes()) < 200_000


def test_importing_the_client_reads_no_prices() -> None:
    code = (
        "import agentflow; agentflow.AgentFlow, agentflow.ModelRegistry\n"
        "from agentflow.llm.config.prices import _built_in\n"
        "print(_built_in.cache_info().currsize)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "0\n"


def test_a_look_up_is_a_dictionarys() -> None:
    """It stands between every answer and its caller, so it must not scan the table."""
    usage = Usage(1000, 100)
    cost("openai", "gpt-4o", usage)
    start = time.process_time()
    for _ in range(2000):
        TABLE.cost("openai", "gpt-4o-2024-08-06", usage)
    assert (time.process_time() - start) / 2000 < 20e-6


def test_made_up_names_do_not_fill_memory() -> None:
    table = PriceTable(resources.files("agentflow.llm.config").joinpath("prices.json").read_bytes())
    for number in range(10_000):
        table.price("openai", f"no-such-model-{number}x")
    assert len(table._found) < 5_000


# ---- which model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "same_as"),
    [
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "GPT-4o", "gpt-4o"),
        ("openai", "gpt-6.1-sol-2026-12-24", "gpt-6.1-sol"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc", "ft:gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-opus-4-1@20250805", "claude-opus-4-1"),
        ("google", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("google", "publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("google", "gemini-2.5-pro-preview-06-05", "gemini-2.5-pro"),
        ("fireworks", "accounts/fireworks/models/gpt-oss-120b", "gpt-oss-120b"),
    ],
)
def test_a_snapshot_costs_what_its_family_costs(provider: str, model: str, same_as: str) -> None:
    found = cost(provider, model, Usage(1000, 100))
    assert found is not None
    assert found == cost(provider, same_as, Usage(1000, 100))


def test_a_snapshot_with_a_price_of_its_own_has_that_one() -> None:
    assert cost("openai", "gpt-4o-2024-05-13", Usage(MILLION, 0)) == 5.0
    assert cost("openai", "gpt-4o", Usage(MILLION, 0)) == 2.5


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "no-such-model"),
        ("nobody", "gpt-4o"),
        ("openai", ""),
        ("openai", "gpt-4o-something"),
        ("openai", "whisper-1"),  # by the second
        ("openai", "gpt-image-1"),  # images cost apart
        ("openrouter", "openai/gpt-4o"),  # its answers say what they cost
    ],
)
def test_an_unknown_price_is_none(provider: str, model: str) -> None:
    assert cost(provider, model, Usage(10, 10)) is None
    assert cost(provider, model, Usage()) is None


@given(st.text(max_size=30))
def test_any_text_may_be_a_name(name: str) -> None:
    assert cost("openai", name, Usage(1, 1)) is None or name.strip()
    assert spellings(name)[0] == name.lower()


# ---- which rates ---------------------------------------------------------------------------------------------


def test_each_sort_of_token_is_paid_once() -> None:
    """Claude: 2 in, 10 out, 0.1 cached, 2.5 and 4 written."""
    usage = Usage(1000, 100, cached_tokens=200, cache_write_tokens=300, cache_write_1h_tokens=100)
    expected = (500 * 2 + 200 * 0.1 + 200 * 2.5 + 100 * 4 + 100 * 10) / MILLION
    assert cost("anthropic", "claude-sonnet-5-5", usage) == pytest.approx(expected)


def test_sound_has_its_own_price() -> None:
    usage = Usage(1000, 100, input_audio_tokens=600, output_audio_tokens=40)
    expected = (400 * 2.5 + 600 * 32 + 60 * 10 + 40 * 64) / MILLION
    assert cost("openai", "gpt-audio", usage) == pytest.approx(expected)


def test_sound_without_a_price_makes_the_whole_unknown() -> None:
    assert cost("openai", "gpt-4o", Usage(1000, 100)) is not None
    assert cost("openai", "gpt-4o", Usage(1000, 100, input_audio_tokens=1)) is None
    assert cost("openai", "gpt-4o", Usage(1000, 100, output_audio_tokens=1)) is None


def test_cached_sound_is_unknown_where_sound_costs_more() -> None:
    """Nobody says how much of what was cached was sound."""
    usage = Usage(1000, 100, cached_tokens=100, input_audio_tokens=100)
    assert cost("google", "gemini-2.5-flash", usage) is None
    assert cost("google", "gemini-3.8-flash", usage) is not None


def test_a_long_prompt_costs_more_altogether() -> None:
    """Beyond the threshold every token of the call has the higher price."""
    assert cost("openai", "gpt-5.4", Usage(272_000, 1000)) == pytest.approx((272_000 * 2.5 + 1000 * 15) / MILLION)
    assert cost("openai", "gpt-5.4", Usage(272_001, 1000)) == pytest.approx((272_001 * 5 + 1000 * 22.5) / MILLION)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2.0),
        ({"service_tier": "default"}, 2.0),
        ({"service_tier": "STANDARD"}, 2.0),
        ({"service_tier": "flex"}, 1.0),
        ({"service_tier": "priority"}, 3.5),
        ({"service_tier": "batch"}, 1.0),
        ({"batch": True}, 1.0),
        ({"batch": True, "service_tier": "default"}, 1.0),
        ({"batch": True, "service_tier": "flex"}, None),
        ({"service_tier": "scale"}, None),
        ({"service_tier": "auto"}, None),
    ],
)
def test_a_tier_has_its_own_price_or_none(options: dict[str, object], expected: float | None) -> None:
    assert cost("openai", "o3", Usage(MILLION, 0), **options) == expected


def test_a_batch_of_a_model_without_batches_is_unknown() -> None:
    assert cost("openai", "gpt-5.3", Usage(10, 10), batch=True) is None
    assert cost("moonshot", "kimi-k3", Usage(10, 10), service_tier="batch") is None


def test_what_a_tier_does_not_list_is_unknown_in_it() -> None:
    """o3 in batches has no price for cached tokens, gpt-5.4 with priority none for long prompts."""
    assert cost("openai", "o3", Usage(100, 10, cached_tokens=50), batch=True) is None
    assert cost("openai", "gpt-5.4", Usage(300_000, 10), service_tier="priority") is None
    assert cost("openai", "gpt-5.4", Usage(200_000, 10), service_tier="priority") is not None


def test_a_price_that_changes_changes_on_its_day() -> None:
    before = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    after = datetime(2026, 12, 1, 0, 0, tzinfo=UTC)
    assert cost("google", "gemini-4-argon", Usage(MILLION, 0), when=before) == 2.0
    assert cost("google", "gemini-4-argon", Usage(MILLION, 0), when=after) == 4.0


def test_a_price_by_the_hour_follows_the_hour() -> None:
    night, day = datetime(2026, 11, 26, 0, 30, tzinfo=UTC), datetime(2026, 11, 26, 1, 0, tzinfo=UTC)
    quiet, busy = (cost("deepseek", "deepseek-v4-pro", Usage(MILLION, 0), when=when) for when in (night, day))
    assert (quiet, busy) == (0.66, 1.32)


# ---- properties ----------------------------------------------------------------------------------------------

COUNTS = st.integers(0, 90_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage as providers report it: parts that fit into their whole."""
    plain, cached, written, hour = (draw(COUNTS) for _ in range(4))
    return Usage(
        plain + cached + written + hour,
        draw(COUNTS),
        cached_tokens=cached,
        cache_write_tokens=written + hour,
        cache_write_1h_tokens=hour,
    )


RATES = st.builds(
    Rates,
    input=st.floats(0, 100),
    output=st.floats(0, 100),
    cached=st.floats(0, 100),
    cache_write=st.floats(0, 100),
    cache_write_1h=st.floats(0, 100),
    input_audio=st.floats(0, 100),
    output_audio=st.floats(0, 100),
)


@given(RATES, usages(), usages())
def test_a_flat_price_is_additive(rates: Rates, one: Usage, other: Usage) -> None:
    parts = [Price.flat(rates).cost(usage) for usage in (one, other)]
    assert Price.flat(rates).cost(one + other) == pytest.approx(sum(part or 0.0 for part in parts))


@given(RATES, usages(), usages())
def test_more_tokens_never_cost_less(rates: Rates, usage: Usage, more: Usage) -> None:
    first, second = rates.cost(usage), rates.cost(usage + more)
    assert first is not None
    assert second is not None
    assert 0 <= first <= second + 1e-12


@given(RATES, st.tuples(*[COUNTS] * 8))
def test_no_usage_makes_a_price_negative(rates: Rates, counts: tuple[int, ...]) -> None:
    """Not even one whose parts exceed their whole, as some servers report."""
    found = rates.cost(Usage(*counts))
    assert found is None or found >= 0


@given(RATES, usages(), st.floats(0, 2))
def test_a_factor_scales_the_whole(rates: Rates, usage: Usage, factor: float) -> None:
    price = Price.flat(rates, batch=factor)
    whole = price.cost(usage)
    assert whole is not None
    assert price.cost(usage, batch=True) == pytest.approx(whole * factor)
    assert price.cost(usage, service_tier="flex") is None


def test_what_a_stated_price_leaves_out_costs_as_plain_input_and_output_do() -> None:
    usage = Usage(100, 10, cached_tokens=50, cache_write_tokens=20, output_audio_tokens=5)
    assert Rates.stated(1.0, 2.0).cost(usage) == pytest.approx(120 / MILLION)
    assert Rates.stated(1.0).cost(Usage(100)) == pytest.approx(100 / MILLION)
    assert Rates.stated(1.0).cost(Usage(100, 1)) is None
    assert Rates.stated(1.0, 2.0, cached=0.1).cost(Usage(100, 10, cached_tokens=50)) == pytest.approx(75 / MILLION)
    assert Rates.stated(1.0, cache_write=3.0).cache_write_1h == 3.0


# ---- next to genai-prices, of whose data the table is made ---------------------------------------------------


def installed() -> str:
    """Which genai-prices is there, in the words of the table."""
    try:
        return f"genai-prices {metadata.version('genai-prices')}"
    except metadata.PackageNotFoundError:
        return "no genai-prices"


THEIRS = {"moonshot": "moonshotai", "xai": "x-ai"}
CONTEXTS: dict[str, dict[str, str]] = {
    "": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}


@pytest.mark.skipif(installed() != TABLE.source, reason=f"the table is made of {TABLE.source}; there is {installed()}")
@pytest.mark.parametrize("provider", PRICE_LISTS)
@pytest.mark.parametrize("tier", CONTEXTS)
@pytest.mark.parametrize("usage", [Usage(1000, 100), Usage(300_000, 7), Usage(1000, 50, cached_tokens=400)])
def test_we_say_what_genai_prices_says_or_nothing(provider: str, tier: str, usage: Usage) -> None:
    """For every name in the table, in every tier: equal prices, or None where theirs falls back to another price."""
    from genai_prices import Usage as TheirUsage
    from genai_prices.data import providers

    [theirs] = [each for each in providers if each.id == THEIRS.get(provider, provider)]
    table = json.loads(resources.files("agentflow.llm.config").joinpath("prices.json").read_bytes())["providers"]
    counted = TheirUsage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_read_tokens=usage.cached_tokens
    )
    priced = 0
    for name in {*table[provider]["models"], *table[provider]["names"]}:
        ours = cost(provider, name, usage, service_tier=tier)
        model = theirs.find_model(name)
        if ours is None or model is None:
            continue
        found = model.calc_price(counted, theirs, genai_request_timestamp=WHEN, price_context=CONTEXTS[tier])
        assert ours == pytest.approx(float(found.total_price)), name
        priced += 1
    assert priced or tier


@pytest.mark.skipif(installed() != TABLE.source, reason=f"the table is made of {TABLE.source}; there is {installed()}")
def test_the_table_is_what_the_script_writes() -> None:
    """Nobody has changed a number by hand."""
    script = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "prices.py"))
    written = script["_text"](script["table"](date.fromisoformat(TABLE.updated)))
    assert written == resources.files("agentflow.llm.config").joinpath("prices.json").read_text(encoding="utf-8")
