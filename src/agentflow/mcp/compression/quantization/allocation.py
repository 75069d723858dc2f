"""How many bits each unit gets, once it is known what each would lose: a knapsack, filled greedily.

    all units at the fewest bits ──▶ again and again the step that wins most KL for what it costs ──▶ within the budget

The losses of units are added up, as if none disturbed another; that is nearly so where all are small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agentflow.errors import RecipeError

__all__ = ["Choice", "cheapest", "fitting"]

Unit = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One width for a unit: what it takes in the file, in bits, and the KL that it alone costs, in nats a token."""

    bits: int
    size: float
    loss: float


Choices = Mapping[Unit, tuple[Choice, ...]]
Chosen = dict[Unit, Choice]


def fitting(choices: Choices, most: float) -> Chosen:
    """The least loss within `most` bits of file. Raises RecipeError where the smallest takes more."""
    smallest = sum(min(choice.size for choice in each) for each in choices.values())
    if smallest > most:
        raise RecipeError(
            f"the budget of {most:,.0f} bits is less than the smallest that can be written, {smallest:,.0f}: scales "
            "count too; larger groups have fewer of them"
        )
    return _grown(choices, lambda chosen, step: _size(chosen) + step <= most, lambda chosen: False)


def cheapest(choices: Choices, most: float) -> Chosen:
    """The smallest file whose losses add up to `most` at most, or as little as there is where none does."""
    return _grown(choices, lambda chosen, step: True, lambda chosen: _loss(chosen) <= most)


def _grown(choices: Choices, fits: Callable[[Chosen, float], bool], enough: Callable[[Chosen], bool]) -> Chosen:
    chosen = {unit: min(each, key=lambda choice: choice.size) for unit, each in choices.items()}
    while not enough(chosen):
        steps = [
            ((chosen[unit].loss - choice.loss) / (choice.size - chosen[unit].size), unit, choice)
            for unit, each in choices.items()
            for choice in each
            if choice.size > chosen[unit].size
            and choice.loss < chosen[unit].loss
            and fits(chosen, choice.size - chosen[unit].size)
        ]
        if not steps:
            break
        _, unit, choice = max(steps, key=lambda step: (step[0], step[1]))
        chosen[unit] = choice
    return chosen


def _size(chosen: Chosen) -> float:
    return sum(choice.size for choice in chosen.values())


def _loss(chosen: Chosen) -> float:
    return sum(choice.loss for choice in chosen.values())
