"""`agentflow router`: train a policy from outcomes, evaluate it on others, show what one has learned.

agentflow router train outcomes/ --out policies/support --quality-floor 0.9
agentflow router evaluate policies/support held_out.csv
agentflow router show policies/support
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from agentflow.cli.debug import debug_option
from agentflow.cli.recorded import file_option, open_runs, since_option
from agentflow.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:  # numpy comes with what is imported here, and most commands need none
    from agentflow.mcp.optimization.router.learning.policy import Objective, Prices
    from agentflow.mcp.optimization.router.learning.reading import Columns
    from agentflow.mcp.optimization.router.learning.table import OutcomeTable

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., object])


@click.group("router", short_help="Train, evaluate and show what routers learn.")
@debug_option
def command() -> None:
    """What a router learns from outcomes: which model a text needs.

    A table has a column of prompts and one of qualities for each model (0 to 1, or true and false), or a row for each
    prompt and model (--model-column). CSV, JSON Lines and JSON are read; in a folder, every file.
    """


def table_options(function: F) -> F:
    for option in reversed(
        (
            click.option("--text-column", metavar="NAME", help="The prompts, where it cannot be guessed."),
            click.option(
                "--model", "models", multiple=True, metavar="NAME[=COLUMN]",
                help="A model, and the column of its qualities; again for each. Guessed without it.",
            ),
            click.option("--group-column", metavar="NAME", help="Rows that belong together; by file without it."),
            click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
                         help="The best quality there is."),
            click.option("--model-column", metavar="NAME", help="The model of each row, in a long table."),
            click.option("--quality-column", metavar="NAME", help="The quality of each row, in a long table."),
            click.option(
                "--price", "prices", multiple=True, metavar="MODEL=IN,OUT",
                help="US dollars per million tokens; again for each model.",
            ),
        )
    ):  # fmt: skip
        function = option(function)
    return function


@command.command("train", short_help="Learn a policy from outcomes.")
@click.argument("tables", nargs=-1, type=click.Path(exists=True))
@click.option("--out", "folder", required=True, metavar="FOLDER", help="Where the policy is written.")
@click.option("--quality-floor", type=click.FloatRange(0, 1), help="Aim: this mean quality at the least cost.")
@click.option("--budget", type=click.FloatRange(min=0), help="Aim: the most quality at these US dollars a request.")
@click.option("--value", type=click.FloatRange(min=0), help="Aim: a good answer is worth these US dollars.")
@click.option(
    "--traffic", type=click.Choice(["seen", "unseen"]), default="seen", show_default=True,
    help="What will be asked: more of the same, or whole groups that the table lacks.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Decides every draw.")
@click.option("--recorded", metavar="ROUTER", help="Learn from recorded runs that this router decided and were judged.")
@since_option
@file_option
@table_options
@click.option("--json", "wants_json", is_flag=True, help="Print what came of it as JSON.")
@debug_option
def train_command(
    tables: Sequence[str],
    folder: str,
    quality_floor: float | None,
    budget: float | None,
    value: float | None,
    traffic: Literal["seen", "unseen"],
    seed: int,
    recorded: str | None,
    since: float | None,
    file: str | None,
    text_column: str | None,
    models: Sequence[str],
    group_column: str | None,
    scale: float,
    model_column: str | None,
    quality_column: str | None,
    prices: Sequence[str],
    wants_json: bool,
) -> None:
    """Learn from TABLES which model a prompt needs, and write the policy that `router: {policy: FOLDER}` obeys.

    It decides only where it is proven, on rows that it has not seen, to beat the best mixture of single models; else
    that mixture decides. Without an aim, it keeps within a point (0.01) of the best model's quality.
    """
    _needs_numpy()
    from agentflow.mcp.optimization.router.learning.artifact import save_policy
    from agentflow.mcp.optimization.router.learning.training import Training, train

    if bool(tables) == bool(recorded):
        raise click.UsageError("give tables to learn from, or --recorded ROUTER")
    if recorded:
        table = _recorded(recorded, since, file)
    else:
        table = _read(tables, _columns(text_column, models, group_column, scale, model_column, quality_column))
    objective = _objective(quality_floor, budget, value)
    policy = train(table, Training(objective=objective, traffic=traffic, seed=seed), prices=_prices(prices))
    save_policy(policy, folder)
    _show(folder, wants_json)


@command.command("evaluate", short_help="Judge a policy by outcomes that it has not seen.")
@click.argument("folder")
@click.argument("tables", nargs=-1, required=True, type=click.Path(exists=True))
@table_options
@click.option("--json", "wants_json", is_flag=True, help="Print it as JSON.")
@debug_option
def evaluate_command(
    folder: str,
    tables: Sequence[str],
    text_column: str | None,
    models: Sequence[str],
    group_column: str | None,
    scale: float,
    model_column: str | None,
    quality_column: str | None,
    prices: Sequence[str],
    wants_json: bool,
) -> None:
    """What the policy in FOLDER would have got in TABLES, beside the best mixture of single models there.

    Rows that it has learned from flatter it: use others.
    """
    _needs_numpy()
    from agentflow.mcp.optimization.router.learning.artifact import load_policy
    from agentflow.mcp.optimization.router.learning.evaluation import evaluate

    policy = load_policy(folder)
    table = _read(tables, _columns(text_column, models, group_column, scale, model_column, quality_column))
    found = asdict(evaluate(policy, table, _prices(prices)))
    if wants_json:
        click.echo(json.dumps(_plain(found), indent=2))
        return
    click.echo(f"{found['rows']:,} rows; {'what was learned' if found['deployed'] else 'the hull'} decides")
    click.echo(f"quality {found['quality']:.4f} for ${found['cost']:.4g} a request")
    low, high = 100 * found["over_hull_low"], 100 * found["over_hull_high"]
    click.echo(
        f"{100 * found['over_hull']:+.2f} points over the hull at the same cost (95 %: {low:+.2f} to {high:+.2f})"
    )
    for name in ("learned", "hull"):
        click.echo(f"{name:>8}: {_measures(found[name])}")
    for model, error in found["calibration"].items():
        click.echo(f"{model}: calibration error {error:.3f}")


@command.command("show", short_help="Say what a policy has learned, and whether it decides.")
@click.argument("folder")
@click.option("--json", "wants_json", is_flag=True, help="Print the manifest.")
@debug_option
def show_command(folder: str, wants_json: bool) -> None:
    """What is in FOLDER: models, aim, verdict, means."""
    _needs_numpy()
    _show(folder, wants_json)


# ---- from words to values --------------------------------------------------------------------------------------


def _needs_numpy() -> None:
    from importlib.util import find_spec

    if find_spec("numpy") is None:
        raise MissingExtraError("what routers learn", "learn")


def _columns(
    text: str | None,
    models: Sequence[str],
    group: str | None,
    scale: float,
    model: str | None,
    quality: str | None,
) -> Columns:
    from agentflow.mcp.optimization.router.learning.reading import Columns

    pairs = [each.partition("=") for each in models]
    named = {name: column or name for name, _, column in pairs} or None
    return Columns(text=text, models=named, group=group, scale=scale, model=model, quality=quality)


def _read(tables: Sequence[str], columns: Columns) -> OutcomeTable:
    from agentflow.mcp.optimization.router.learning.reading import read_table

    return read_table(list(tables), columns)


def _recorded(router: str, since: float | None, file: str | None) -> OutcomeTable:
    from agentflow.mcp.optimization.router.learning.recorded import recorded_table

    with open_runs(file) as reader:
        return recorded_table(reader, router=router, since=since)


def _objective(floor: float | None, budget: float | None, value: float | None) -> Objective | None:
    from agentflow.mcp.optimization.router.learning.policy import Objective

    if floor is None and budget is None and value is None:
        return None
    return Objective(quality_floor=floor, budget_usd=budget, value_usd=value)


def _prices(stated: Sequence[str]) -> Prices:
    from agentflow.llm.config.prices import Rates

    found = {}
    for each in stated:
        model, _, numbers = each.rpartition("=")
        try:
            [read, *written] = [float(number) for number in numbers.split(",")]
            found[model] = Rates.stated(read, *written)
        except (ValueError, TypeError):
            raise ConfigurationError(
                f"a price is MODEL=IN,OUT in US dollars per million tokens, not {each!r}"
            ) from None
    return found


# ---- from values to words --------------------------------------------------------------------------------------


def _show(folder: str, wants_json: bool) -> None:
    from agentflow.mcp.optimization.router.learning.artifact import read_manifest

    facts = read_manifest(folder)
    if wants_json:
        click.echo(json.dumps(_plain({k: v for k, v in facts.items() if k != "calibrations"}), indent=2))
        return
    click.echo(f"{folder}: {len(facts['models'])} models, {facts['rows']:,} rows learned from")
    click.echo(f"decides: {'what was learned' if facts['verdict']['deployed'] else 'the hull'}")
    click.echo(f"verdict: {facts['verdict']['reason']}")
    aim = {name: value for name, value in facts["objective"].items() if value is not None}
    click.echo(f"aim: {', '.join(f'{name} {value:.4g}' for name, value in aim.items())}")
    click.echo(f"expected: quality {facts['aim']['quality']:.4f} for ${facts['aim']['cost']:.4g} a request")
    for model, quality, cost in zip(facts["models"], facts["hull"]["quality"], facts["hull"]["cost"], strict=True):
        click.echo(f"  {model}: quality {quality:.4f}, ${cost:.4g} a request")


def _measures(said: Mapping[str, float]) -> str:
    names = {"apgr": "APGR", "cpt50": "CPT50", "cpt80": "CPT80", "near_best_cost": "cost within a point of the best"}
    return ", ".join(f"{title} {said[name]:.3f}" for name, title in names.items())


def _plain(value: Any) -> Any:
    """Without NaN, which JSON does not know."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
