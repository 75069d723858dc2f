"""Whether `agentflow bench` tells the truth: next to a server whose latencies are known, and next to GuideLLM.

    python benchmarks/load_generator.py          makes .venvs/load-guidellm with pip (6 GB, with torch), then measures
    python benchmarks/load_generator.py --here   without GuideLLM

    known_server.py ◀──HTTP── agentflow bench   ┐ in turns, the same number of requests at the same rate, and for the
                    ◀──HTTP── guidellm run      ┘ n-th request of either the same latencies, drawn by a seed

The server remembers when it said what. So the sample is no source of error: what is reported is compared with the
latencies of these very requests, and what differs is the generator, its client, and the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentflow.mcp.optimization.benchmark.percentiles import quantile
from processes import ask, heard, started
from results import ROOT, Report, note, number, options, paired

HERE = Path(__file__).resolve().parent
GUIDELLM = "guidellm==0.8.1"
TTFT, GAP, TOKENS = (-1.6, 0.4), (-3.9, 0.3), 20  # medians of 202 and 20 ms: an answer takes 0.6 s
RATE = 20.0
SHARES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
TIMES = {"ttft": "time to first token", "e2e": "end to end", "itl": "gap between tokens"}
Told = dict[str, dict[str, float]]
"""A time's percentiles and mean, in seconds."""


def environment() -> Path:
    """The interpreter of GuideLLM's own environment, which is made where it is missing or pinned otherwise."""
    folder = ROOT / ".venvs" / "load-guidellm"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists() or stamp.read_text() != GUIDELLM:
        note(f"load_generator: making {folder.relative_to(ROOT)}, which is large")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", GUIDELLM], check=True)
        stamp.write_text(GUIDELLM)
    return python


def summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {**{name: quantile(ordered, p) for name, p in SHARES.items()}, "mean": sum(ordered) / len(ordered)}


class Lab:
    """The server, and a folder for files."""

    def __init__(self, server: subprocess.Popen[str], folder: Path, seconds: float) -> None:
        self.server, self.folder, self.seconds = server, folder, seconds
        self.port = int(heard(server))
        self.count = int(RATE * seconds)

    def expect(self, seed: int) -> None:
        ask(self.server, do="expect", seed=seed, ttft=TTFT, gap=GAP, tokens=TOKENS)

    def told(self) -> list[dict[str, Any]]:
        """What the server meant and did, a request each."""
        found: list[dict[str, Any]] = ask(self.server, do="told")
        return found

    def truth(self) -> tuple[Told, Told, float]:
        """What it meant, what it did, and by how much it was late at most, in seconds."""
        told = self.told()
        meant = {
            "ttft": summary([each["ttft"] for each in told]),
            "e2e": summary([each["ttft"] + sum(each["gaps"]) for each in told]),
            "itl": summary([gap for each in told for gap in each["gaps"]]),
        }
        did = {
            "ttft": summary([each["said"][0] for each in told]),
            "e2e": summary([each["said"][-1] for each in told]),
            "itl": summary([b - a for each in told for a, b in zip(each["said"], each["said"][1:], strict=False)]),
        }
        return meant, did, max(each["late"] for each in told)

    # ---- the two generators

    def agentflow(self) -> tuple[Told, Told, dict[str, Any]]:
        """By the command line, as a user would. From the intended moment, from the moment of sending, and the rest."""
        lab = {"kind": "openai", "base_url": f"http://127.0.0.1:{self.port}/v1", "api_key_env": None}
        models = {"known": {"provider": "lab", "model_id": "known"}}
        (self.folder / "models.yml").write_text(json.dumps({"providers": {"lab": lab}, "models": models}))
        out = self.folder / "ours.json"
        words = f"bench known --dataset questions.jsonl --rate {RATE} --arrivals constant --duration {self.seconds} "
        words += f"--warmup 0 --cooldown 0 --quiet --max-lag 60 --json {out}"
        command = [sys.executable, "-m", "agentflow.cli.main", *words.split()]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        [run] = json.loads(out.read_text())["benchmarks"]
        ours = run["agentflow"]

        def told(times: Mapping[str, Any]) -> Told:
            return {name: {key: times[name][key]["value"] for key in (*SHARES, "mean")} for name in times}

        return told({name: ours["times"][name] for name in TIMES}), told(ours["sent_times"]), run

    def guidellm(self, python: Path) -> tuple[Told, dict[str, Any]]:
        """Its own percentiles, from the moment of sending; its inter-token latency is a mean of each request."""
        out = self.folder / "guidellm.json"
        command = [python.parent / "guidellm", "run", "--disable-console"]
        command += ["--backend", f"kind=openai_http,target=http://127.0.0.1:{self.port},model=known"]
        command += [
            "--profile",
            f"kind=constant,rate=[{RATE:g}]",
            "--constraint",
            f"kind=max_requests,count={self.count}",
        ]
        command += ["--data", "kind=json_file,path=questions.jsonl", "--output", f"kind=json,path={out}"]
        quiet = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run(command, check=True, cwd=self.folder, env=quiet, timeout=600, capture_output=True)
        [run] = json.loads(out.read_text())["benchmarks"]
        metrics = run["metrics"]
        return {
            "ttft": scaled(metrics["time_to_first_token_ms"], 1e-3),
            "e2e": scaled(metrics["request_latency"], 1.0),
        }, metrics


def scaled(metric: Mapping[str, Any], unit: float) -> dict[str, float]:
    found = metric["successful"]
    return {**{name: found["percentiles"][name] * unit for name in SHARES}, "mean": found["mean"] * unit}


def names_fit(python: Path, folder: Path) -> list[str]:
    """Names in our file that GuideLLM's own classes do not know; there should be none."""
    code = (
        "import json, sys; from guidellm.benchmark.schemas.metrics import GenerativeMetrics as M; "
        "from guidellm.schemas import DistributionSummary as D; "
        "m = json.load(open(sys.argv[1]))['benchmarks'][0]['metrics']; "
        "bad = [n for n in m if n not in M.model_fields]; "
        "s = m['request_latency']['successful']; D.model_validate(s); "
        "print(json.dumps(bad + [n for n in s if n not in D.model_fields]))"
    )
    done = subprocess.run([python, "-c", code, folder / "ours.json"], check=True, capture_output=True, text=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


# ---- measuring ---------------------------------------------------------------------------------------------------


def measure(rounds: int, seconds: float, python: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {"rounds": [], "unknown names": []}
    with tempfile.TemporaryDirectory() as name, started(sys.executable, str(HERE / "known_server.py")) as server:
        folder = Path(name)
        questions = [json.dumps({"prompt": f"Question {index}: why is there a tide?"}) for index in range(2_000)]
        (folder / "questions.jsonl").write_text("\n".join(questions))
        lab = Lab(server, folder, seconds)
        for turn in range(rounds):
            found["rounds"].append(one_round(lab, turn, python))
            note(f"load_generator: round {turn + 1} of {rounds}")
        if python is not None:
            found["unknown names"] = names_fit(python, folder)
    return found


def one_round(lab: Lab, turn: int, python: Path | None) -> dict[str, Any]:
    lab.expect(turn)
    intended, sent, run = lab.agentflow()
    meant, did, late = lab.truth()
    result: dict[str, Any] = {
        "meant": meant,
        "did": did,
        "late": late,
        "ours": intended,
        "ours, from sending": sent,
        "answered": run["agentflow"]["answered"],
        "lag": run["agentflow"]["lag"]["p99"]["value"],
    }
    if python is not None:
        lab.expect(turn)
        theirs, metrics = lab.guidellm(python)
        meant, did, late = lab.truth()
        delay = metrics["request_dispatch_delay"]["successful"]["percentiles"]["p99"]
        totals = metrics["request_totals"]
        result |= {"theirs": theirs, "their did": did, "their lag": delay, "their totals": totals}
    return result


def ratios(rounds: Sequence[Mapping[str, Any]], value: str, reference: str, time: str, at: str) -> float:
    return paired([each[value][time][at] for each in rounds], [each[reference][time][at] for each in rounds])


def worst(rounds: Sequence[Mapping[str, Any]], value: str, reference: str, times: Sequence[str]) -> float:
    """The largest deviation of any percentile and mean, in per cent; each the median of the rounds."""
    every = [ratios(rounds, value, reference, time, at) for time in times for at in (*SHARES, "mean")]
    return max(abs(ratio - 1.0) for ratio in every) * 100.0


# ---- telling -----------------------------------------------------------------------------------------------------


def report(found: Mapping[str, Any], seconds: float, compared: bool) -> Report:
    rounds = found["rounds"]
    made = Report(
        "load_generator",
        "The load generator",
        "What `agentflow bench` reports of a server on loopback whose every latency is known: the time to the first "
        f"token is log-normal with a median of 202 ms, the gap between tokens with one of 20 ms, {TOKENS} tokens an "
        f"answer, {RATE:g} requests a second for {seconds:g} s, {len(rounds)} rounds.",
    )
    made.raw.update(found)
    rows = []
    for time, title in TIMES.items():
        for at in (*SHARES, "mean"):
            cells = [rounds[0][side][time][at] * 1e3 for side in ("meant", "did", "ours")]
            off = ratios(rounds, "ours", "did", time, at) - 1.0
            rows.append([f"{title}, {at}", *map(number, cells), f"{off * 100:+.2f} %"])
    made.table(
        "Against the truth",
        ["", "meant, ms", "served, ms", "reported, ms", "off"],
        rows,
        "Of the first round; the last column is the median of all rounds. `meant` is what the server drew, `served` "
        "when it wrote it: on a machine with other work it is late itself.",
    )
    off = worst(rounds, "ours", "did", ["ttft", "e2e"])
    late = max(each["late"] for each in rounds) * 1e3
    lag = max(each["lag"] for each in rounds) * 1e3
    beside = f"the server was {late:.0f} ms late at most, the generator {lag:.1f} ms at the 99th percentile"
    made.promise("percentiles and means against the truth", limit=2.0, measured=off, unit="%", beside=beside)
    if compared:
        add_guidellm(made, found)
    return made


def add_guidellm(made: Report, found: Mapping[str, Any]) -> None:
    rounds = found["rounds"]
    rows = []
    for time in ("ttft", "e2e"):
        for at in (*SHARES, "mean"):
            ours, theirs = (rounds[0][side][time][at] * 1e3 for side in ("ours, from sending", "theirs"))
            near = ratios(rounds, "theirs", "ours, from sending", time, at) - 1.0
            off = ratios(rounds, "theirs", "their did", time, at) - 1.0
            cells = [number(ours), number(theirs), f"{near * 100:+.2f} %", f"{off * 100:+.2f} %"]
            rows.append([f"{TIMES[time]}, {at}", *cells])
    lag = max(each["their lag"] for each in rounds) * 1e3
    made.table(
        f"Next to {GUIDELLM.replace('==', ' ')}",
        ["", "AgentFlow, ms", "GuideLLM, ms", "GuideLLM to AgentFlow", "GuideLLM off the truth"],
        rows,
        "Both from the moment a request was sent, which is how GuideLLM counts, the same latencies for both. "
        f"GuideLLM sent {lag:.0f} ms behind its plan at the 99th percentile.",
    )
    near = worst(rounds, "theirs", "ours, from sending", ["ttft", "e2e"])
    made.promise("agreement with GuideLLM", limit=5.0, measured=near, unit="%")
    unknown = found["unknown names"]
    made.promise("names in our JSON that GuideLLM does not know", limit=0.0, measured=float(len(unknown)), unit="names")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--here", action="store_true", help="without GuideLLM and its environment")
    arguments = parser.parse_args()
    python = None if arguments.here or arguments.tiny else environment()
    seconds = 3.0 if arguments.tiny else 30.0
    found = measure(1 if arguments.tiny else 3, seconds, python)
    report(found, seconds, python is not None).finish(arguments.output)


if __name__ == "__main__":
    main()
