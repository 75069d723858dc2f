"""Who goes on with a conversation: the model that gave the last answer, found out from the history alone."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.routing import CHEAP, DEAR, Watched, answer, ask, priced, says

from agentflow.errors import OverloadedError
from agentflow.llm.content import ToolCall, ToolResult
from agentflow.llm.messages import Message, Request, Response
from agentflow.mcp.optimization.router import Accept, Candidate, Cascade, ModelRouter, Rule
from agentflow.mcp.optimization.router.sessions import Standing, marked, standing

CALL = Response((ToolCall("call-1", "weather", {"city": "Oslo"}),), "m", "p", finish_reason="tool_calls")
RESULT = Message("tool", (ToolResult("call-1", "rain"),))


def models(**more: Any) -> dict[str, Any]:
    return {"small": priced("small", CHEAP, quality=0.5), "large": priced("large", DEAR, quality=0.9), **more}


def follows(model: str, *turns: Message, by: str = "auto", reply: Response = CALL) -> Request:
    """A request whose history has an answer of that model."""
    first = ask("What is the weather?")
    return replace(first, messages=(*first.messages, marked(reply, by, model).message, *turns))


def test_the_last_answer_says_who_gave_it_and_whether_tools_are_waited_for() -> None:
    assert standing(ask(), "auto") is None
    assert standing(follows("small", RESULT), "auto") == Standing("small", True)
    assert standing(follows("small", Message("user", "And then?")), "auto") == Standing("small", False)
    assert standing(follows("small", RESULT, by="other"), "auto") is None
    again = follows("small", RESULT)
    later = replace(
        again, messages=(*again.messages, marked(answer("fine"), "auto", "large").message, Message("user", "?"))
    )
    assert standing(later, "auto") == Standing("large", False)


def test_an_answer_of_nobody_known_is_not_taken_for_an_earlier_one() -> None:
    asked = follows("small", RESULT)
    foreign = replace(asked, messages=(*asked.messages, Message("assistant", "from elsewhere"), Message("user", "?")))
    assert standing(foreign, "auto") is None


def test_the_mark_survives_a_trip_through_json() -> None:
    asked = follows("large", RESULT)
    assert standing(Request.from_json(asked.to_json()), "auto") == Standing("large", True)


def test_the_mark_leaves_other_opaque_data_alone() -> None:
    signed = answer("a", opaque={"anthropic": {"signature": "s"}, "router": {"outer": "x"}})
    assert marked(signed, "auto", "small").opaque == {
        "anthropic": {"signature": "s"},
        "router": {"outer": "x", "auto": "small"},
    }


def test_a_forged_mark_is_no_reason_to_break() -> None:
    for opaque in ({"router": "x"}, {"router": {"auto": 3}}, {"router": {"auto": "nobody"}}):
        request = Request("auto", (Message("assistant", "a", opaque=opaque), Message("user", "b")))
        assert ModelRouter(models(), name="auto").explain(request).chosen == "small"


async def test_tool_rounds_stay_with_the_model_whatever_rules_and_policy_say() -> None:
    """Rules look at the prompt, which grows with each round: another may hold in the middle."""
    router = ModelRouter(models(), name="auto", rules=[Rule("small", longer=1)])
    found = router.explain(follows("large", RESULT))
    assert (found.chosen, found.by, found.rule) == ("large", "session", None)
    assert found.reason == "the conversation waits for its tools, and goes on"


async def test_a_conversation_stays_with_its_model_but_a_rule_wins() -> None:
    follow_up = follows("large", Message("user", "And then?"))
    assert ModelRouter(models(), name="auto").explain(follow_up).chosen == "large"
    ruled = ModelRouter(models(), name="auto", rules=[Rule("small", text="then")]).explain(follow_up)
    assert (ruled.chosen, ruled.by) == ("small", "rule")


@pytest.mark.parametrize(
    ("sessions", "in_tools", "in_conversation"),
    [("conversation", "large", "large"), ("tools", "large", "small"), ("never", "small", "small")],
)
def test_how_long_a_model_stays_can_be_said(sessions: Any, in_tools: str, in_conversation: str) -> None:
    router = ModelRouter(models(), name="auto", sessions=sessions)
    assert router.explain(follows("large", RESULT)).chosen == in_tools
    assert router.explain(follows("large", Message("user", "And then?"))).chosen == in_conversation


async def test_a_model_that_fails_or_may_not_answer_hands_the_conversation_over() -> None:
    watched = Watched()
    failing = ModelRouter(models(large=priced(OverloadedError("busy"), DEAR)), name="auto")
    with watched.asking():
        reply = await failing.execute(follows("large", RESULT))
    assert reply.opaque["router"] == {"auto": "small"}
    assert [(route["from"], route["to"]) for route in watched.routes] == [("auto", "large"), ("large", "small")]
    full = ModelRouter(models(large=Candidate(says("no"), context=1)), name="auto").explain(follows("large", RESULT))
    assert full.chosen == "small"
    assert full.excluded["large"].startswith("context: ")


async def test_in_tool_rounds_nothing_is_judged_and_in_a_conversation_a_cascade_begins_where_it_stands() -> None:
    three = models(middle=priced("middle", DEAR))
    accept = Accept(check=lambda request, response: False)
    router = ModelRouter(three, name="auto", cascade=Cascade(("small", "middle", "large"), accept))
    assert router.explain(follows("small", RESULT)).stages == ()
    assert (await router.execute(follows("small", RESULT))).text == "small"
    found = router.explain(follows("middle", Message("user", "And then?")))
    assert (found.chosen, found.stages) == ("middle", ("middle", "large"))


async def test_an_answer_through_two_routers_is_marked_by_both() -> None:
    inner = ModelRouter(models(), name="inner")
    outer = ModelRouter({"inner": inner, "other": priced("other", DEAR)}, name="outer", rules=[Rule("inner")])
    assert (await outer.execute(ask())).opaque == {"router": {"inner": "small", "outer": "inner"}}
    chunks = [chunk async for chunk in outer.execute_streaming(ask())]
    [marks] = [chunk.opaque for chunk in chunks if chunk.opaque]
    assert marks == {"router": {"inner": "small", "outer": "inner"}}
