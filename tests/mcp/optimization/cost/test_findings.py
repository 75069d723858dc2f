"""Logs that have little to say are met with a sentence, and what is written can be read."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.support.cost_traffic import Traffic
from tests.support.png import Picture

from agentflow import ModelRegistry
from agentflow.errors import ConfigurationError
from agentflow.mcp.optimization.cost import (
    Call,
    CostOptimizer,
    PriceSnapshot,
    UsageLog,
    write_patch,
    write_picture,
    write_report,
)
from agentflow.mcp.optimization.cost.findings import Findings
from agentflow.mcp.optimization.cost.page import page_of
from agentflow.mcp.optimization.cost.page_front import labels
from agentflow.mcp.optimization.cost.patch import patch_of

HOSTILE = '</style><script>alert(1)</script>"\n  evil: {cache: {ttl: 1}}\u202e'
LONE = Call(at=1e9, run="a", model="nobody-knows", provider="nobody", input_tokens=9, output_tokens=9)


def found_in(*calls: Call) -> Findings:
    return CostOptimizer(UsageLog(calls)).propose()


# ---- little to say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ([], "there are no calls in this log"),
        ([LONE], "nobody knows the price of any"),
        ([Call(at=1e9, model="m", failed=True, cost=0.1)], "have failed"),
        ([Call(at=1e9, model="m", cost=0.1)], "1 runs are too few to say how sure"),
        ([LONE, Call(at=1e9, model="m", cost=0.1)], "nobody knows what 1 of the calls cost (nobody-knows)"),
        ([Call(at=1e9, model="m", cost=0.1)], "less than an hour"),
        ([Call(at=1e9, model="m", cost=0.1)], "nobody judged any answer"),
    ],
)
def test_a_log_with_little_in_it_gets_a_sentence_a_page_and_a_patch(calls: list[Call], said: str) -> None:
    found = found_in(*calls)
    assert any(said in note for note in found.notes), found.notes
    assert found.together is None
    assert said in page_of(found)
    assert patch_of(found).endswith("models: {}\n")


@pytest.mark.parametrize(
    "terms",
    [
        {"quality_floor": 1.5},
        {"tolerance": -0.1},
        {"cache_ttl": 0.0},
        {"level": 1.0},
        {"cache_capacity": 0},
        {"patient": "x"},
    ],
)
def test_terms_that_are_impossible_are_refused(terms: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        CostOptimizer(UsageLog([])).propose(**terms)  # type: ignore[arg-type]


def test_a_price_that_differs_from_what_was_paid_is_said() -> None:
    calls = [
        Call(at=1e9 + each, run=str(each), model="gpt-4o", provider="openai", input_tokens=10**6, cost=1.25)
        for each in range(30)
    ]
    assert any("gpt-4o has cost 50%" in note for note in found_in(*calls).notes)


def test_equal_prices_have_equal_digests_and_others_another() -> None:
    calls = [Call(at=0.0, model="gpt-4o", provider="openai"), Call(at=0.0, model="gpt-4o-mini", provider="openai")]
    one, other = PriceSnapshot.listed(calls), PriceSnapshot.listed(calls[::-1])
    assert one.digest == other.digest
    assert re.fullmatch(r"[0-9a-f]{64}", one.digest)
    assert PriceSnapshot.listed(calls[:1]).digest != one.digest
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", one.dated)


# ---- the patch -----------------------------------------------------------------------------------------------


def test_the_patch_is_laid_over_models_yml_and_what_it_names_is_in_force(tmp_path: Path, findings: Findings) -> None:
    base = "\n".join(f"  {name}: {{provider: lab}}" for name in ("large", "middle", "small", "haiku"))
    (tmp_path / "models.yml").write_text(f"providers:\n  lab: {{kind: scripted}}\nmodels:\n{base}\n")
    write_patch(findings, tmp_path / "patch.yml")
    text = (tmp_path / "patch.yml").read_text()
    registry = ModelRegistry.load(
        environ={"AGENTFLOW_CONFIG": str(tmp_path / "patch.yml")}, cwd=tmp_path, home=tmp_path
    )
    assert list(registry.problems()) == []
    assert registry.describe("large").max_tokens is not None
    for proposal in findings.proposals:
        assert " ".join(proposal.title.split()[:4]) in text
    assert findings.prices.digest[:16] in text


def hostile() -> Findings:
    calls = [
        Call(
            at=1e9 + 60.0 * each, run=str(each), model=HOSTILE, tenant=HOSTILE, flow=HOSTILE, cost=1.0,
            temperature=0.0, finish_reason="stop", fingerprint="f",
        )
        for each in range(60)
    ]  # fmt: skip
    return CostOptimizer(UsageLog(calls, source=HOSTILE)).propose()


def test_names_from_a_log_stay_names_in_the_patch() -> None:
    text = patch_of(hostile())
    assert not re.search(r"^\s*evil:", text, re.MULTILINE)
    assert "\u202e" not in text.replace("\\u202e", "")


# ---- the page ------------------------------------------------------------------------------------------------


class _Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_asks_nothing_of_anybody_and_has_no_script(findings: Findings) -> None:
    tags = _Tags(page_of(findings)).tags
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in tags}
    addresses = [value for _, facts in tags for name, value in facts.items() if name in ("href", "src", "style")]
    assert addresses == ["data:,"]
    assert "@import" not in page_of(findings)
    assert "url(" not in page_of(findings)


def test_names_from_a_log_stay_text_on_the_page() -> None:
    page = page_of(hostile())
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page


def test_the_page_shows_each_proposal_the_front_and_what_was_spent(findings: Findings) -> None:
    page = page_of(findings)
    tags = _Tags(page).tags
    assert [facts["id"] for tag, facts in tags if tag == "section"] == [
        "proposals", "together", "front", "spend", "method",
    ]  # fmt: skip
    assert sum("proposal" in str(facts.get("class", "")).split() for _, facts in tags) == len(findings.proposals)
    assert findings.prices.digest in page
    assert sum(tag == "polyline" for tag, _ in tags) == 2  # for broad pages and for slim ones


def test_names_beside_points_do_not_lie_over_each_other() -> None:
    sides = labels([(100.0, 100.0), (104.0, 108.0), (700.0, 50.0)], 760.0)
    assert len(set(sides[:2])) == 2
    assert not sides[2][0]


def test_the_picture_is_drawn(tmp_path: Path, findings: Findings) -> None:
    write_report(findings, tmp_path / "out.html")
    write_picture(findings, tmp_path / "out.png")
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == page_of(findings)
    picture = Picture((tmp_path / "out.png").read_bytes())
    assert (picture.width, picture.height) == (1152, 691)
    write_picture(found_in(), tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 5_000


def test_a_log_of_one_company_fits_its_own_prices(traffic: Traffic, findings: Findings) -> None:
    assert findings.unpriced == 0
    assert findings.spent == pytest.approx(sum(call.cost or 0.0 for call in traffic.log))
