"""Write the package's price table anew from the data of genai-prices, which is installed with the group `prices`.

    python scripts/prices.py [--date 2026-11-26]      →  src/agentflow/llm/config/prices.json

Only providers of the built-in models.yml are taken, as far as their models cost by the token. What `Usage` does not
count (images, seconds, searches) cannot be priced by it, so a model that has a price of its own for images or seconds
is left out: no price is better than a wrong one. Prices that begin later or hold at certain hours are kept as such.

A row is what `agentflow.llm.prices.Rates` holds. A column that a model does not list costs as the plain input does; a
column that only a tier does not list is unknown there, and null. A step without a row is unknown altogether.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from genai_prices import types as theirs
from genai_prices.data import providers

TARGET: Final = Path(__file__).resolve().parent.parent / "src" / "agentflow" / "llm" / "config" / "prices.json"
# Our name of a provider, and theirs. OpenRouter is not here: its answers say what they cost.
PROVIDERS: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "google",
    "moonshot": "moonshotai",
    "deepseek": "deepseek",
    "zai": "zai",
    "groq": "groq",
    "mistral": "mistral",
    "xai": "x-ai",
    "together": "together",
    "fireworks": "fireworks",
    "cerebras": "cerebras",
}
COLUMNS: Final = (
    "input_mtok",
    "output_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "cache_write_1h_mtok",
    "input_audio_mtok",
    "output_audio_mtok",
)
# Their price of cached sound has no column: sound and a cache in one request are priced only where sound costs as text.
IGNORED: Final = {"web_searches_kcount", "storage_searches_kcount", "cache_audio_read_mtok"}
CONTEXTS: Final = {
    "": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast"},
}
SPEEDS: Final = {"fast": {"speed": "fast"}}  # Anthropic's fast mode

Row = list[float | None]
Steps = list[tuple[int, Row | None]]


@dataclass(frozen=True)
class Moment:
    """When prices are looked at. Theirs depend on a date and on a time of day."""

    at: datetime

    @classmethod
    def on(cls, day: date, minute: int = 0) -> Moment:
        return cls(datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=minute))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--date", type=date.fromisoformat, default=datetime.now(UTC).date(), help="prices of that day")
    day = parser.parse_args().date
    TARGET.write_text(_text(table(day)), encoding="utf-8")


def table(day: date) -> dict[str, Any]:
    """The whole table as plain data."""
    known = {provider.id: provider for provider in providers}
    return {
        "source": f"genai-prices {version('genai-prices')}",
        "updated": day.isoformat(),
        "providers": {ours: _provider(ours, known[name], day) for ours, name in PROVIDERS.items()},
    }


def _provider(ours: str, provider: theirs.Provider, day: date) -> dict[str, Any]:
    models = {model.id.lower(): made for model in provider.models if (made := _model(ours, model, day))}
    names = {}
    for model in provider.models:
        for name in sorted({name.lower().strip("-@/") for name in _names(model.match)}):
            found = provider.find_model(name)
            if found is not None and found.id.lower() in models and name != found.id.lower():
                names[name] = found.id.lower()
    return {"names": names, "models": models}


def _names(match: Any) -> Iterator[str]:
    """The names that a clause of theirs speaks of. What patterns add to them are dates, which the look-up cuts off."""
    match match:
        case theirs.ClauseOr(or_=clauses) | theirs.ClauseAnd(and_=clauses):
            for clause in clauses:
                yield from _names(clause)
        case theirs.ClauseEquals(equals=name) | theirs.ClauseStartsWith(starts_with=name):
            yield name
        case theirs.ClauseContains(contains=name) | theirs.ClauseEndsWith(ends_with=name):
            yield name


def _model(ours: str, model: theirs.ModelInfo, day: date) -> dict[str, Any] | None:
    now, hours = _rates(ours, model, Moment.on(day)), []
    starts = sorted({change for change in _changes(model) if change > day})
    later = [[start.isoformat(), _rates(ours, model, Moment.on(start))] for start in starts]
    spans = _spans(model)
    if spans:
        assert not later, f"{model.id}: a price with both dates and hours to come is more than the table can say"
        quiet = next(m for m in range(1440) if all(not (low <= m < high) for low, high in spans))
        now = _rates(ours, model, Moment.on(day, quiet))
        hours = [[low, high, _rates(ours, model, Moment.on(day, low))] for low, high in spans]
    if now is None or any(rates is None for *_, rates in [*later, *hours]):
        return None
    return {"rates": now, **({"later": later} if later else {}), **({"hours": hours} if hours else {})}


def _changes(model: theirs.ModelInfo) -> Iterator[date]:
    for each in [*(model.prices if isinstance(model.prices, list) else []), *(model.price_variants or [])]:
        if isinstance(each.constraint, theirs.StartDateConstraint):
            yield each.constraint.start_date


def _spans(model: theirs.ModelInfo) -> list[tuple[int, int]]:
    """Minutes of the day (UTC) in which another price holds."""
    found = []
    for each in model.prices if isinstance(model.prices, list) else []:
        if isinstance(each.constraint, theirs.TimeOfDateConstraint):
            start, end = each.constraint.start_time, each.constraint.end_time
            assert start < end, f"{model.id}: hours over midnight"
            found.append((start.hour * 60 + start.minute, end.hour * 60 + end.minute))
    return found


def _rates(ours: str, model: theirs.ModelInfo, moment: Moment) -> dict[str, Steps] | None:
    standard = _listed(model.get_prices(moment.at))
    if "input_mtok" not in standard or _depends_on_more(model, standard):
        return None
    found = {"": _steps(ours, standard, standard)}
    for name, context in {**CONTEXTS, **(SPEEDS if ours == "anthropic" else {})}.items():
        own = _variant(model, context, moment)
        if own:
            found[name] = _steps(ours, own, standard)
    return found


def _listed(price: theirs.ModelPrice) -> dict[str, Any]:
    return {key: value for key, value in price.__dict__.items() if value is not None}


def _depends_on_more(model: theirs.ModelInfo, listed: dict[str, Any]) -> bool:
    extra = set(listed) - set(COLUMNS) - IGNORED
    # Texts are all that we embed, so that an embedding model's price for images is of no concern.
    return bool(extra) and not ("embedding" in model.id and all("image" in key or "video" in key for key in extra))


def _variant(model: theirs.ModelInfo, context: dict[str, str], moment: Moment) -> dict[str, Any]:
    """What a tier lists by itself at that time; nothing where there is no such tier."""
    found: dict[str, Any] = {}
    for variant in (model.price_variants or []) if context else []:
        active = variant.constraint is None or variant.constraint.active(moment.at)
        if active and variant.when == context:
            found = {**_listed(variant.prices), **found}
    return found if "input_mtok" in found else {}


def _steps(ours: str, listed: dict[str, Any], standard: dict[str, Any]) -> Steps:
    own = _starts(listed)
    steps: Steps = [(start, _row(ours, listed, standard, start)) for start in sorted({0, *own})]
    # A long prompt costs more, but this tier does not say how much: it is unknown there.
    steps += [(start, None) for start in sorted(_starts(standard)) if start > max({0, *own})]
    return steps


def _starts(listed: dict[str, Any]) -> set[int]:
    return {tier.start for price in listed.values() if isinstance(price, theirs.TieredPrices) for tier in price.tiers}


def _row(ours: str, listed: dict[str, Any], standard: dict[str, Any], start: int) -> Row:
    found = {key: _at(listed[key], start) for key in COLUMNS if key in listed}
    plain = found["input_mtok"]
    inherits = {key for key in ("cache_read_mtok", "cache_write_mtok") if key not in standard}
    if "cache_write_mtok" not in standard:
        inherits.add("cache_write_1h_mtok")
    if ours == "google" and "input_audio_mtok" not in standard:
        inherits.add("input_audio_mtok")  # Google lists sound only where it costs something else than text
    row = [found.get(key, plain if key in inherits else None) for key in COLUMNS]
    while row and row[-1] is None:
        row.pop()
    return row


def _at(price: Any, start: int) -> float:
    if not isinstance(price, theirs.TieredPrices):
        return float(price)
    return float(next((tier.price for tier in reversed(price.tiers) if start >= tier.start), price.base))


def _text(data: dict[str, Any]) -> str:
    """JSON with a line for each model, so that a change of price is a change of one line."""
    rooms = []
    for name, provider in data["providers"].items():
        models = ",\n".join(f"   {_flat(key)}: {_flat(value)}" for key, value in provider["models"].items())
        rooms.append(f'  {_flat(name)}: {{"names": {_flat(provider["names"])}, "models": {{\n{models}}}}}')
    head = f'{{"source": {_flat(data["source"])}, "updated": {_flat(data["updated"])},\n "providers": {{\n'
    return head + ",\n".join(rooms) + "}}\n"


def _flat(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main()
