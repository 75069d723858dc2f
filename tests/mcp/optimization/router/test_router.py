"""The router as a provider: whom it asks, what it does when that fails, what it tells, and that it does as it says."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.routing import CHEAP, DEAR, Known, Watched, answer, ask, priced, says

from agentflow.core.limits import Ledger, Limits
from agentflow.errors import (
    AuthenticationError,
    BadRequestError,
    CircuitOpenError,
    ConfigurationError,
    ModelError,
    NoCandidateError,
    OverloadedError,
    RateLimitError,
    UnsupportedError,
)
from agentflow.llm.caller import Caller, asking_as
from agentflow.llm.messages import EmbeddingRequest, Request, Tool
from agentflow.llm.providers.base import EmbeddingProvider, LLMProvider, TokenCounter
from agentflow.llm.providers.scripted import ScriptedProvider
from agentflow.mcp.optimization.router import Candidate, Decision, Exploration, ModelRouter, Rule
from agentflow.mcp.optimization.router.learning.policy import Choice, Forecast

TWO = {"small": Forecast(0.7, 0.6, 0.8, 0.001), "large": Forecast(0.9, 0.85, 0.95, 0.01)}


def pair(small: object = "small", large: object = "large", **more: object) -> ModelRouter:
    models = {"small": priced(small, CHEAP, quality=0.7), "large": priced(large, DEAR, quality=0.9)}
    return ModelRouter(models, **more)  # type: ignore[arg-type]


# ---- whom it asks --------------------------------------------------------------------------------------------


async def test_it_is_a_provider_and_asks_the_cheapest_without_an_aim() -> None:
    router = pair(name="auto")
    assert isinstance(router, LLMProvider)
    assert isinstance(router, EmbeddingProvider)
    assert isinstance(router, TokenCounter)
    assert (router.name, (await router.execute(ask())).text) == ("auto", "small")


async def test_the_candidate_gets_the_request_under_the_name_that_its_provider_knows() -> None:
    small = says("ok")
    router = ModelRouter({"small": Candidate(small, "small-2026-01"), "other": says("no")})
    request = ask("Hi", temperature=0.3, metadata={"a": "b"})
    await router.execute(request)
    assert small.requests == [request.replace_model("small-2026-01")]


async def test_the_cost_is_worked_out_where_a_provider_leaves_it_open() -> None:
    reply = await pair(small=answer("ok", 10)).execute(ask())
    assert reply.cost == pytest.approx((100 * 0.1 + 10 * 0.4) / 1e6)
    free = await pair(small=answer("ok", cost=0.0, cache_hit="exact")).execute(ask())
    assert free.cost == 0.0


async def test_a_learned_policy_decides_among_those_who_may_answer() -> None:
    policy = Known(TWO, value=1.0)
    router = pair(policy=policy)
    assert (await router.execute(ask("hard one"))).text == "large"
    assert policy.asked == ["hard one"]
    assert (await pair(policy=policy, value=0.001).execute(ask())).text == "small"  # aimed anew


async def test_candidates_that_the_policy_does_not_know_are_asked_by_rule_or_where_nobody_else_is_left() -> None:
    models = {"small": priced("small", CHEAP), "new": priced("new", DEAR)}
    policy = Known({"small": TWO["small"]})
    assert (await ModelRouter(models, policy=policy).execute(ask())).text == "small"
    assert (await ModelRouter(models, policy=policy, rules=[Rule("new")]).execute(ask())).text == "new"
    nobody = ModelRouter({"new": priced("new", DEAR), "newer": priced("newer", CHEAP)}, policy=policy)
    assert (await nobody.execute(ask())).text == "newer"


async def test_a_rule_decides_before_the_policy_and_is_not_evaded_when_its_model_fails() -> None:
    policy = Known(TWO)
    router = pair(policy=policy, rules=[Rule("small", tenant="acme", name="contract")])
    with asking_as(Caller("acme")):
        found = router.explain(ask())
        assert (found.chosen, found.by, found.rule) == ("small", "rule", "rule 1 (contract)")
        assert found.excluded == {"large": "rule: rule 1 (contract) keeps to small"}
    assert policy.asked == []
    failing = pair(small=OverloadedError("busy"), rules=[Rule("small", tenant="acme")])
    with asking_as(Caller("acme")), pytest.raises(OverloadedError):
        await failing.execute(ask())
    assert (await failing.execute(ask())).text == "large"


async def test_a_rule_with_several_models_leaves_the_choice_to_the_policy() -> None:
    models = {name: priced(name, DEAR, quality=quality) for name, quality in (("a", 0.9), ("b", 0.8), ("c", 0.7))}
    router = ModelRouter(models, value=1.0, rules=[Rule(("b", "c"))])
    found = router.explain(ask())
    assert (found.chosen, found.by, found.rule, found.allowed) == ("b", "stated", "rule 1", ("b", "c"))


async def test_the_limit_of_a_caller_excludes_what_it_cannot_pay() -> None:
    ledger = Ledger(Limits(dollars=0.001))
    router = pair(value=1.0)
    assert (await router.execute(ask())).text == "large"
    with asking_as(Caller(ledgers=(ledger,))):
        assert (await router.execute(ask())).text == "small"
        ledger.spend(0, 0.00099)
        with pytest.raises(NoCandidateError, match="is left") as failure:
            await router.execute(ask())
    assert set(failure.value.excluded) == {"small", "large"}
    assert not failure.value.retryable


async def test_where_nobody_may_answer_each_is_listed_with_its_reason() -> None:
    models = {
        "blind": Candidate(says("no"), capabilities=["tools"]),
        "ill": Candidate(says("no")),
        "far": Candidate(says("no"), context=5),
    }
    router = ModelRouter(models, name="auto", healthy=lambda name: name != "ill")
    with pytest.raises(NoCandidateError) as failure:
        await router.execute(ask(output=None, tools=(), thinking=None, max_tokens=None, metadata={"residency": "eu"}))
    assert failure.value.excluded["blind"].startswith("residency: nobody says where it works")
    assert failure.value.excluded["far"].startswith("context: ")
    assert failure.value.guard == "auto"
    with pytest.raises(NoCandidateError, match="ill: health: its circuit breaker is open") as failure:
        await ModelRouter({"ill": says("no")}, healthy=lambda name: False).execute(ask())
    assert failure.value.retryable  # a breaker closes again


async def test_a_policy_that_chooses_what_it_was_not_offered_is_found_out() -> None:
    class Stubborn(Known):
        def choose(self, *args: object, **more: object) -> Choice:
            return Choice("large", 1.0, "always", "fixed")

    router = ModelRouter(
        {"small": priced("small", CHEAP), "new": priced("new", CHEAP), "large": Candidate(says("no"), context=1)},
        policy=Stubborn(TWO),
    )
    with pytest.raises(ConfigurationError, match="known chose 'large', and might choose small"):
        await router.execute(ask())


# ---- when that fails -----------------------------------------------------------------------------------------


async def test_the_next_best_is_asked_where_another_may_succeed_and_the_last_error_tells_of_all() -> None:
    errors = [RateLimitError("too fast"), AuthenticationError("wrong key"), OverloadedError("busy")]
    models = {
        name: priced(error, DEAR, quality=q) for name, error, q in zip("abc", errors, (0.9, 0.8, 0.7), strict=True)
    }
    router = ModelRouter({**models, "d": priced("at last", CHEAP, quality=0.1)}, value=1.0)
    assert (await router.execute(ask())).text == "at last"
    with pytest.raises(OverloadedError) as failure:
        await ModelRouter(models, value=1.0).execute(ask())
    assert failure.value.__notes__ == [
        "a had failed before: RateLimitError: too fast",
        "b had failed before: AuthenticationError: wrong key",
    ]


@pytest.mark.parametrize("error", [BadRequestError("no such field"), ModelError("odd"), ValueError("bug")])
async def test_what_is_wrong_with_the_request_is_raised_at_once(error: Exception) -> None:
    large = says("large")
    router = ModelRouter({"small": priced(error, CHEAP), "large": Candidate(large, price=DEAR)})
    with pytest.raises(type(error)):
        await router.execute(ask())
    assert large.requests == []


async def test_a_guard_of_ours_that_refuses_is_passed_over_too() -> None:
    assert (await pair(small=CircuitOpenError("lab/small", "open")).execute(ask())).text == "large"


async def test_a_candidate_that_cannot_be_configured_is_passed_over_and_one_that_cannot_be_built_is_excluded() -> None:
    assert (await pair(small=UnsupportedError("no such thing")).execute(ask())).text == "large"
    router = pair()
    pool = router._pool

    def build(name: str) -> LLMProvider:
        if name == "small":
            raise ConfigurationError("SMALL_API_KEY is not set")
        return says("large")

    keyless = ModelRouter(type(pool)(pool.names, pool.describe, build))
    assert keyless.explain(ask()).excluded == {"small": "configuration: SMALL_API_KEY is not set"}
    assert (await keyless.execute(ask())).text == "large"


@settings(max_examples=80)
@given(st.lists(st.sampled_from(["ok", "busy", "bad"]), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_models_are_asked_once_each_from_the_best_on_until_one_answers_or_the_request_is_at_fault(
    outcomes: list[str], backwards: bool, streaming: bool
) -> None:
    asked: list[str] = []

    def model(name: str, outcome: str) -> ScriptedProvider:
        def say(request: Request) -> object:
            asked.append(name)
            return {"ok": f"from {name}", "busy": OverloadedError(name), "bad": BadRequestError(name)}[outcome]

        return ScriptedProvider(say)  # type: ignore[arg-type]

    names = [f"m{number}" for number in range(len(outcomes))]
    worth = {name: (number if backwards else len(names) - number) / 10 for number, name in enumerate(names)}
    models = {
        name: Candidate(model(name, outcome), price=CHEAP, quality=worth[name])
        for name, outcome in zip(names, outcomes, strict=True)
    }
    router = ModelRouter(models, value=1.0)

    async def main() -> str:
        if streaming:
            return "".join([chunk.content async for chunk in router.execute_streaming(ask())])
        return (await router.execute(ask())).text

    order = sorted(names, key=lambda name: -worth[name])
    ends = [name for name in order if outcomes[names.index(name)] != "busy"]
    wanted = order[: order.index(ends[0]) + 1] if ends else order
    last = outcomes[names.index(wanted[-1])]
    if last == "ok":
        assert asyncio.run(main()) == f"from {wanted[-1]}"
    else:
        with pytest.raises(ModelError, match=wanted[-1]) as failure:
            asyncio.run(main())
        assert isinstance(failure.value, BadRequestError if last == "bad" else OverloadedError)
    assert asked == wanted


async def test_cancellation_goes_through_and_nobody_else_is_asked() -> None:
    started = asyncio.Event()

    async def wait(request: Request) -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    large = says("large")
    router = ModelRouter(
        {"small": Candidate(ScriptedProvider(wait), price=CHEAP), "large": Candidate(large, price=DEAR)}
    )
    task = asyncio.create_task(router.execute(ask()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert large.requests == []


async def test_an_error_that_somebody_makes_of_a_cancellation_asks_nobody_else() -> None:
    started = asyncio.Event()

    async def masks(request: Request) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OverloadedError("masked") from None
        return "never"

    large = says("large")
    router = ModelRouter(
        {"small": Candidate(ScriptedProvider(masks), price=CHEAP), "large": Candidate(large, price=DEAR)}
    )
    task = asyncio.create_task(router.execute(ask()))
    await started.wait()
    task.cancel()
    with pytest.raises(OverloadedError):
        await task
    assert large.requests == []


async def test_many_requests_at_once_do_not_get_in_each_others_way() -> None:
    def reply(request: Request) -> object:
        return OverloadedError("busy") if "fail" in request.prompt else f"small {request.prompt}"

    models = {
        "small": Candidate(ScriptedProvider(reply), price=CHEAP),  # type: ignore[arg-type]
        "large": Candidate(ScriptedProvider(lambda request: f"large {request.prompt}"), price=DEAR),
    }
    router = ModelRouter(models)
    texts = [f"{number} {'fail' if number % 3 == 0 else 'ok'}" for number in range(300)]
    replies = await asyncio.gather(*[router.execute(ask(text)) for text in texts])
    wanted = [f"{'large' if 'fail' in text else 'small'} {text}" for text in texts]
    assert [reply.text for reply in replies] == wanted


# ---- what it tells -------------------------------------------------------------------------------------------


async def test_each_choice_is_told_with_its_reason_and_what_it_was_made_by() -> None:
    watched = Watched(tenant="acme")
    models = {
        "small": priced(OverloadedError("busy"), CHEAP, quality=0.95),
        "large": priced("large", DEAR, quality=0.9),
        "eye": Candidate(says("no"), capabilities=["image"]),
    }
    router = ModelRouter(models, name="auto", value=1.0)
    with watched.asking():
        await router.execute(ask(tools=(Tool("weather"),)))
    first, second = watched.routes
    assert (first["from"], first["to"]) == ("auto", "small")
    assert first["reason"] == "it has the most of $1 × quality − cost"
    assert first["excluded"] == {"eye": "capability: it has no tools"}
    assert first["tenant"] == "acme"
    assert first["propensity"] == 1.0
    assert first["policy"].startswith("stated ")
    assert first["candidates"]["large"]["quality"] == 0.9
    assert first["candidates"]["large"]["cost"] > first["candidates"]["small"]["cost"] > 0.0
    assert first["candidates"]["small"]["propensity"] == 1.0
    assert (second["from"], second["to"], second["reason"]) == ("small", "large", "small failed; no other may answer")
    assert second["excluded"]["small"] == "failed: OverloadedError"
    assert first["choice"] != second["choice"]


async def test_a_refusal_is_told_as_that_of_a_guard() -> None:
    watched = Watched()
    with watched.asking(), pytest.raises(NoCandidateError):
        await ModelRouter({"far": Candidate(says("no"), context=1)}, name="auto").execute(ask())
    [event] = watched.events
    assert (event.kind, event.data["guard"], event.data["error_type"]) == ("rejected", "auto", "NoCandidateError")


async def test_a_shadow_policy_is_told_of_and_never_followed_not_even_where_it_breaks() -> None:
    shadow = Known(TWO, value=100.0)
    watched = Watched()
    router = pair(policy=Known(TWO, value=0.001), shadow=shadow)
    with watched.asking():
        assert (await router.execute(ask())).text == "small"
    assert watched.routes[0]["shadow"] == "large"
    shadow.models = ("nobody",)
    assert router.explain(ask()).shadow == "(ValueError)"
    assert (await router.execute(ask())).text == "small"


# ---- explaining ----------------------------------------------------------------------------------------------


def test_an_explanation_is_a_table() -> None:
    models = {
        "small": priced("small", CHEAP, quality=0.7),
        "large": Candidate(says("large"), price=DEAR),
        "eye": Candidate(says("no"), capabilities=["image"]),
    }
    router = ModelRouter(models, name="auto", value=0.01)
    assert str(router.explain(ask(tools=(Tool("weather"),)))).splitlines() == [
        "auto → small   it has the most of $0.01 × quality − cost",
        f"policy: stated {router.explain(ask()).policy.split()[1]}",
        "aim: a good answer is worth $0.01",
        "λ: $0.01",
        "prompt: about 12 tokens",
        "",
        "model  chosen  quality            cost       P     note",
        "small  ✓       0.70 [0.70, 0.70]  $0.000121  1.00",
        "large          ?                  $0.002424  0.00",
        "eye                                                capability: it has no tools",
    ]


def test_explaining_sends_nothing_and_draws_nothing() -> None:
    small = says("small")
    router = ModelRouter({"small": small, "large": says("large")}, rng=random.Random(1))
    before = router._rng.getstate()
    router.explain(ask())
    assert small.requests == []
    assert router._rng.getstate() == before


_models = st.dictionaries(
    st.sampled_from("abcde"),
    st.builds(
        Candidate,
        st.just(says("ok")),
        price=st.sampled_from([CHEAP, DEAR, None]),
        capabilities=st.sampled_from([None, ["tools"], ["image", "tools"], []]),
        context=st.sampled_from([None, 5, 100, 10_000]),
        regions=st.sampled_from([(), ("eu",), ("eu", "us")]),
        quality=st.one_of(st.none(), st.floats(0, 1)),
    ),
    min_size=1,
)


@settings(max_examples=150)
@given(
    _models,
    st.sampled_from([ask(), ask(tools=(Tool("t"),)), ask(metadata={"residency": "eu"}), ask(max_tokens=90)]),
    st.sampled_from([{}, {"value": 0.01}, {"quality_floor": 0.5}, {"budget_per_call": 0.001}]),
    st.frozensets(st.sampled_from("abcde"), max_size=2),
    st.one_of(st.none(), st.floats(0.0, 0.01)),
)
def test_the_chosen_one_is_never_an_excluded_one_and_is_the_one_that_is_asked(
    models: dict[str, Candidate],
    request_: Request,
    aim: dict[str, float],
    ill: frozenset[str],
    dollars: float | None,
) -> None:
    qualities = {"qualities": dict.fromkeys(list(models)[:1], 0.5)} if aim else {}
    router = ModelRouter(models, healthy=lambda name: name not in ill, **aim, **qualities)  # type: ignore[arg-type]
    ledgers = () if dollars is None else (Ledger(Limits(dollars=dollars)),)
    with asking_as(Caller(ledgers=ledgers)):
        found = _explained(router, request_)
        if isinstance(found, NoCandidateError):
            assert set(found.excluded) == set(models)
            with pytest.raises(NoCandidateError):
                asyncio.run(router.execute(request_))
            return
        assert found.chosen in found.allowed
        assert set(found.allowed) | set(found.excluded) == set(models)
        assert set(found.allowed) & (set(found.excluded) | ill) == set()
        assert sum(found.probabilities.values()) == pytest.approx(1.0)
        assert found.probabilities[found.chosen] == found.propensity
        reply = asyncio.run(router.execute(request_))
        assert reply.opaque["router"] == {"router": found.chosen}


def _explained(router: ModelRouter, request: Request) -> Decision | NoCandidateError:
    try:
        return router.explain(request)
    except NoCandidateError as error:
        return error


# ---- what else a provider does -------------------------------------------------------------------------------


async def test_embeddings_go_to_the_one_candidate_that_embeds() -> None:
    embedder = says("no", name="vectors")
    models = {
        "chat": Candidate(says("hi"), capabilities=["tools"]),
        "vectors": Candidate(embedder, "vectors-3", capabilities=["embed"]),
    }
    found = await ModelRouter(models).embed(EmbeddingRequest("auto", ("a", "b")))
    assert (found.model, len(found.vectors)) == ("vectors-3", 2)
    with pytest.raises(UnsupportedError, match="no model for embeddings"):
        await ModelRouter({"chat": models["chat"]}).embed(EmbeddingRequest("auto", ("a",)))
    two = {**models, "more": Candidate(says("no"), capabilities=["embed"])}
    with pytest.raises(UnsupportedError, match="vectors of two models"):
        await ModelRouter(two).embed(EmbeddingRequest("auto", ("a",)))


async def test_tokens_are_counted_by_the_model_that_would_answer() -> None:
    class Counts(ScriptedProvider):
        async def count_tokens(self, request: Request) -> int:
            return len(request.model)

    router = ModelRouter({"small": Candidate(Counts(["no"]), "small-1", CHEAP), "large": priced("no", DEAR)})
    assert await router.count_tokens(ask()) == len("small-1")
    with pytest.raises(UnsupportedError, match="does not count tokens"):
        await pair().count_tokens(ask())


def test_schemas_are_asked_for_only_where_all_candidates_have_them() -> None:
    with_schemas = says("a")
    without = ScriptedProvider(["b"], schemas=False)
    assert ModelRouter({"a": with_schemas}).schemas
    assert not ModelRouter({"a": with_schemas, "b": without}).schemas


async def test_it_closes_what_it_was_given_once() -> None:
    closed = []

    class Closing(ScriptedProvider):
        async def aclose(self) -> None:
            closed.append(self.name)

    both = Closing(["a"], name="one")
    await ModelRouter(
        {"a": Candidate(both, "a-1"), "b": Candidate(both, "b-1"), "c": Closing(["c"], name="two")}
    ).aclose()
    assert closed == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rules": [Rule("nobody")]}, "rule 1 names nobody, which is no candidate"),
        ({"qualities": {"nobody": 0.5}}, "`qualities` names nobody"),
        ({"value": 1.0, "quality_floor": 0.5}, "an objective is one of"),
        ({"exploration": Exploration()}, "needs a λ"),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_made(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        pair(**options)


def test_an_aim_without_qualities_or_a_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="state `quality`"):
        ModelRouter({"small": says("a"), "large": says("b")}, quality_floor=0.9)
    with pytest.raises(ConfigurationError, match="at least one candidate"):
        ModelRouter({})
