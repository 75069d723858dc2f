"""A loop with a judge: a draft is rewritten until the judge accepts it, or has been asked often enough.

    agentflow run examples/judge_loop.py "spring tides"

    write ─▶ judge ─accept──▶ publish
      ▲        └──rewrite─┐
      └───────────────────┘

The judge here is a rule in Python; put an LLMNode in its place to let a model judge. Without --model a scripted author
writes, so that it runs with no key: its drafts grow with each complaint.
"""

from __future__ import annotations

from typing import Literal

from agentflow import END, AgentFlow, AsyncFlow, Key, LLMNode, Request, ScriptedProvider, SharedState, node

ARGS, OUTPUT = Key[list[str]]("args"), Key[str]("output")
TOPIC, DRAFT, COMPLAINT, ROUNDS = Key[str]("topic"), Key[str]("draft"), Key[str]("complaint"), Key[int]("rounds")

LEAST, MOST_ROUNDS = 25, 5


@node
async def begin(state: SharedState) -> None:
    state[TOPIC] = " ".join(state[ARGS]) or "spring tides"
    state[COMPLAINT], state[ROUNDS] = "none, this is the first draft", 0


write = LLMNode(
    prompt="Write a paragraph about {topic}. Complaint about the last draft: {complaint}",
    writes=DRAFT,
    name="write",
)


@node
async def judge(state: SharedState) -> Literal["accept", "rewrite"]:
    words = len(state[DRAFT].split())
    done = state.modify(ROUNDS, lambda rounds: rounds + 1)
    if words >= LEAST or done == MOST_ROUNDS:
        return "accept"
    state[COMPLAINT] = f"it has {words} words and needs {LEAST}"
    return "rewrite"


@node
async def publish(state: SharedState) -> None:
    state[OUTPUT] = f"{state[DRAFT]}\n\n(accepted in round {state[ROUNDS]})"


flow = AsyncFlow(
    begin >> write >> judge,
    judge.on("rewrite") >> write,
    judge.on("accept") >> publish >> END,
    name="essay",
)


# ---- an author that needs no key -----------------------------------------------------------------------------

SENTENCES = [
    "When sun and moon stand in one line, their pulls on the sea add up.",
    "The water then rises higher and falls lower than on other days.",
    "Sailors plan for it, because it comes twice with every moon.",
]


def grow(request: Request) -> str:
    """One sentence more than the last draft had, which the complaint tells."""
    last = next((int(word) for word in request.prompt.split() if word.isdigit()), 0)
    drafts = [" ".join(SENTENCES[:count]) for count in range(1, len(SENTENCES) + 1)]
    return next((draft for draft in drafts if len(draft.split()) > last), drafts[-1])


AgentFlow.registry.register_provider("author", lambda settings: ScriptedProvider(grow, name="author"))
if not AgentFlow.registry.default_model().chosen:
    AgentFlow.registry.set_default("author/drafts", "the example brings its own author")
