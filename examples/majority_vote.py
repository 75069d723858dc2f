"""A majority vote: several models answer one question at the same time, and what most of them say is the answer.

    agentflow run examples/majority_vote.py "Is 91 a prime number?"
    agentflow run examples/majority_vote.py "Is 91 a prime number?" --input models='["gpt-4o-mini", "kimi-k2.6"]'

    prepare ─▶ ( ask 1 │ ask 2 │ ask 3 ) ─▶ count        a member that fails does not stop the vote

Without `models` a scripted panel votes, so that it runs with no key: each member reads the question in its own way.
"""

from __future__ import annotations

import re
from collections import Counter

from agentflow import AgentFlow, AsyncFlow, BaseNode, Key, Parallel, Request, ScriptedProvider, SharedState, node
from agentflow.errors import InputError

ARGS, OUTPUT = Key[list[str]]("args"), Key[str]("output")
QUESTION, MODELS = Key[str]("question"), Key[list[str]]("models")
VOTES = Key[tuple[tuple[str, str], ...]](  # (model, its answer); branches contribute, nobody assigns
    "votes", reduce=lambda so_far, more: so_far + more, initial=tuple
)
MEMBERS = 3


@node
async def prepare(state: SharedState) -> None:
    question = " ".join(state[ARGS]) or "Is 91 a prime number?"
    state[QUESTION] = question
    models = state.get("models", [])
    if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
        raise InputError("models is a list of names, as in --input models='[\"gpt-4o-mini\"]'", field="models")
    state[MODELS] = [models[seat % len(models)] if models else PANEL[seat] for seat in range(MEMBERS)]


def member(seat: int) -> BaseNode:
    @node(name=f"ask_{seat + 1}")
    async def ask(state: SharedState) -> None:
        model = state[MODELS][seat]
        prompt = f"Answer with one word, yes or no: {state[QUESTION]}"
        said = await AgentFlow.model(model).prompt(prompt).execute()
        state.add(VOTES, ((model, first_word(said)),))

    return ask


@node
async def count(state: SharedState) -> None:
    votes = state[VOTES]
    winner, number = Counter(vote for _, vote in votes).most_common(1)[0]
    heard = "".join(f"  {model}: {vote}\n" for model, vote in votes)
    state[OUTPUT] = f"{state[QUESTION]}\n{heard}{winner} ({number} of {len(votes)} votes)"


def first_word(text: str) -> str:
    found = re.search(r"\w+", text.lower())
    return found[0] if found else "nothing"


# ---- a panel that needs no key -------------------------------------------------------------------------------


def divides(request: Request) -> str:
    number = int((re.search(r"\d+", request.prompt) or ["0"])[0])
    return "Yes." if number > 1 and all(number % low for low in range(2, int(number**0.5) + 1)) else "No."


def guesses(request: Request) -> str:
    """Takes every odd number for a prime, as the hasty do."""
    return "Yes" if (re.search(r"\d+", request.prompt) or ["0"])[0][-1] in "13579" else "No"


PANEL = ["panel/careful", "panel/hasty", "panel/thorough"]


def speak(request: Request) -> str:
    return guesses(request) if request.model == "hasty" else divides(request)


AgentFlow.registry.register_provider("panel", lambda settings: ScriptedProvider(speak, name="panel"))

flow = AsyncFlow(
    prepare >> Parallel(*(member(seat) for seat in range(MEMBERS)), on_error="collect") >> count, name="vote"
)
