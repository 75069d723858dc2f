"""What was measured of model calls, as tables and promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_clients import CONNECTIONS
from llm_measured import BASE, OURS, PIECES, Measured, Plan
from results import Report, median, number

NAMES = {
    "agentflow": "AgentFlow",
    "aiohttp": "bare aiohttp",
    "openai": "openai SDK",
    "any-llm": "any-llm",
    "pydantic-ai": "pydantic-ai",
    "langchain-openai": "langchain-openai",
    "litellm": "LiteLLM",
}


def report(results: Mapping[str, Measured], plan: Plan) -> Report:
    made = Report(
        "llm_overhead",
        "A model call",
        "CPU of the caller's process in µs, against a server on loopback whose own CPU is not counted; each client in "
        "a process and an environment of its own, taking turns. AgentFlow goes its full way: registry, builder, "
        "client, provider, price. Bare aiohttp is a session with `json.loads` and no error handling. pydantic-ai is "
        "its `direct` requests, without an agent.",
    )
    call_table(made, results, plan)
    most_table(made, results, plan)
    stream_table(made, results)
    start_table(made, results)
    add_promises(made, results, plan)
    made.raw = {
        name: {"rounds": result.rounds, "starts": result.starts, "many": result.many, "most": result.most}
        for name, result in results.items()
    }
    return made


def label(name: str, result: Measured) -> str:
    return f"{NAMES[name]} {result.version}".strip()


def call_table(made: Report, results: Mapping[str, Measured], plan: Plan) -> None:
    rows = []
    for name, result in results.items():
        cells = []
        for part in ("alone", "crowd", "many"):
            cells += [told(result.middle(part)), told(over(results, name, BASE, part))]
        rows.append([label(name, result), *cells])
    made.table(
        "One call",
        ["client", "alone", "× bare", f"{plan.crowd} at once", "× bare", f"{plan.many:,} at once", "× bare"],
        rows,
        "The answer comes whole, and at once. " + lost(results, plan),
    )


def lost(results: Mapping[str, Measured], plan: Plan) -> str:
    """Which calls of the many were not answered."""
    troubled = [
        f"{NAMES[name]}: {trouble(turn, plan)}"
        for name, result in results.items()
        for turn in result.many
        if missed(turn)
    ]
    return f"Of {plan.many:,} at once were not answered: {'; '.join(troubled)}." if troubled else "None failed."


def missed(said: Mapping[str, Any]) -> int:
    return int(said["failed"] + said["late"])


def trouble(said: Mapping[str, Any], plan: Plan) -> str:
    errors = [f"{count:,} {kind}" for kind, count in said["errors"].items()]
    return ", ".join([*errors, *([f"{said['late']:,} not within {plan.seconds} s"] if said["late"] else [])])


def most_table(made: Report, results: Mapping[str, Measured], plan: Plan) -> None:
    rows = []
    for name, result in results.items():
        said = result.most
        if said is not None:
            failed = f"{missed(said):,} ({trouble(said, plan)})" if missed(said) else "0"
            cpu = number(said["cpu"] * 1e6) if said["answered"] else "–"
            wall = number(said["wall"]) if "wall" in said else "–"
            rows.append([label(name, result), f"{said['answered']:,}", failed, f"{said['held']:,}", cpu, wall])
    made.table(
        f"{plan.most:,} calls at the same time",
        ["client", "answered", "not answered", "before the server at once", "CPU a call", "seconds for all"],
        rows,
        f"All begin together in one fresh process, and the server takes {plan.delay:,} ms for each. AgentFlow and bare "
        f"aiohttp are told that {CONNECTIONS:,} connections may be open; the others have as many as they have by "
        f"themselves. Nobody gets more than {plan.seconds} seconds. CPU includes opening the connections."
        if rows
        else "Not measured: the hard limit of open files (`ulimit -Hn`) is too low for that.",
    )


def stream_table(made: Report, results: Mapping[str, Measured]) -> None:
    rows = [
        [
            label(name, result),
            told(result.middle("long")),
            told(over(results, name, BASE, "long")),
            number(result.piece),
            told(result.middle("first")),
        ]
        for name, result in results.items()
    ]
    made.table(
        f"One stream of {PIECES} pieces",
        ["client", "CPU a stream", "× bare", "CPU a piece", "first piece after"],
        rows,
        f"All pieces arrive in one burst. A piece's CPU is the difference between streams of {PIECES} and of 1. The "
        "first piece's time is wall time in µs, the best of each round.",
    )


def start_table(made: Report, results: Mapping[str, Measured]) -> None:
    rows = [
        [
            label(name, result),
            number(result.import_cpu),
            told(result.resident),
            told(result.four),
            told(result.further),
        ]
        for name, result in results.items()
    ]
    made.table(
        "Import and memory",
        [
            "client",
            "import and set-up, ms of CPU",
            "resident after a call, MB",
            "after a call each of four providers, MB",
            "a further provider, KB",
        ],
        rows,
        "Fresh processes; asyncio and json are loaded already, and count into the resident memory. The four providers "
        "are OpenAI, Anthropic, Google and Moonshot, so that a further one brings code of its own; a client without "
        "numbers there knows one provider, or needs another package for each.",
    )


def told(value: float | None) -> str:
    return "–" if value is None else number(value)


def over(results: Mapping[str, Measured], above: str, below: str, part: str) -> float | None:
    """The median ratio of the rounds in which both took part."""
    pairs = together(results, above, below, part)
    return median(own / base for own, base in pairs) if pairs else None


def together(results: Mapping[str, Measured], above: str, below: str, part: str) -> list[tuple[float, float]]:
    if above not in results or below not in results:
        return []
    own, base = results[above].rounds[part], results[below].rounds[part]
    return [(own[turn], base[turn]) for turn in own if turn in base]


def add_promises(made: Report, results: Mapping[str, Measured], plan: Plan) -> None:
    for part, how in (("alone", "alone"), ("crowd", f"{plan.crowd} at once")):
        what = f"a call, {how}"
        made.promise(what, limit=1.4, measured=over(results, OURS, BASE, part), unit="× bare aiohttp")
        for name, limit in (("openai", 5), ("litellm", 12)):
            measured = over(results, name, OURS, part)
            made.promise(
                f"{what}: {NAMES[name]} over AgentFlow", limit=limit, measured=measured, unit="×", at_least=True
            )
    ours, bare = results.get(OURS), results.get(BASE)
    most = None if ours is None else ours.most
    made.promise(
        "calls at the same time in one process, none failed",
        limit=plan.most,
        measured=None if most is None else most["answered"],
        unit="answered",
        at_least=True,
        beside="" if most is None else f"{most['held']:,} before the server at once",
    )
    beside = f"bare aiohttp here: {number(bare.piece)}" if bare else ""
    made.promise(
        "a piece of a stream", limit=12, measured=ours.piece if ours else None, unit="µs of CPU", beside=beside
    )
    late = [own - base for own, base in together(results, OURS, BASE, "first")]
    made.promise(
        "the first piece, later than bare aiohttp",
        limit=150,
        measured=median(late) * 1e6 if late else None,
        unit="µs",
        beside=f"bare aiohttp here: {told(bare.middle('first'))}" if bare else "",
    )
    made.promise(
        "resident after import, models.yml and one call",
        limit=45,
        measured=ours.resident if ours else None,
        unit="MB",
        beside=f"bare aiohttp here: {told(bare.resident)}" if bare else "",
    )
    made.promise(
        "a further provider of another kind, its code included",
        limit=200,
        measured=ours.further if ours else None,
        unit="KB",
    )
