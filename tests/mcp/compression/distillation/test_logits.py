"""What a decoder is taught: its loss is the formula's on the whole, and the text it writes itself is its own."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_models import tiny_decoder
from torch.nn import functional

from agentflow.mcp.compression.checkpoint import Checkpoint
from agentflow.mcp.compression.distillation import logits, losses
from agentflow.mcp.compression.distillation.logits import LogitLesson
from agentflow.mcp.compression.distillation.losses import Divergence, divergence
from agentflow.mcp.compression.distillation.on_policy import continued
from agentflow.mcp.compression.distillation.stage import decoder
from agentflow.mcp.compression.recipe import Distill

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A student and its teacher."""
    folder = tmp_path_factory.mktemp("models")
    return tuple(
        decoder(Checkpoint.open(tiny_decoder(folder / str(seed), seed=seed, initializer_range=0.3))) for seed in (0, 1)
    )


def windows(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 300, (rows, length), generator=torch.Generator().manual_seed(seed))


def lesson(teacher: Any, *, rows: int = 4, **settings: Any) -> LogitLesson:
    stage = Distill(steps=10, batch=rows, length=12, **settings)
    return LogitLesson(stage, teacher, windows(rows, 12), windows(3, 12, seed=1))


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("mix", [0.0, 0.7, 1.0])
def test_the_loss_is_the_recipes_formula_and_so_are_its_gradients(
    models: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, kind: Divergence, mix: float
) -> None:
    """Made a few positions at a time, with all weights trained through both body and head."""
    student, teacher = models
    taught = lesson(teacher, mix=mix, temperature=2.0, divergence=kind)
    monkeypatch.setattr(losses, "PORTION", 7 * 300)
    loss = taught.loss(student, 0)
    loss.backward()  # type: ignore[no-untyped-call]
    found = gradients(student)
    text = windows(4, 12)[taught._order.at(0)]
    mine, theirs = student(text).logits[:, :-1], teacher(text).logits[:, :-1].detach()
    apart = divergence(kind, theirs, mine, temperature=2.0).mean()
    whole = mix * apart + (1 - mix) * functional.cross_entropy(mine.flatten(0, 1), text[:, 1:].flatten())
    whole.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, whole)
    wanted = gradients(student)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
    assert all(weight.grad is None for weight in teacher.parameters())


def test_tied_embeddings_get_the_gradient_of_both_their_uses(tmp_path: Path) -> None:
    student = decoder(Checkpoint.open(tiny_decoder(tmp_path / "m", tied=True)))
    taught = lesson(None)
    taught.loss(student, 0).backward()  # type: ignore[no-untyped-call]
    found = gradients(student)
    text = windows(4, 12)[taught._order.at(0)]
    student(text, labels=text).loss.backward()
    for name, gradient in gradients(student).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_without_a_teacher_it_is_transformers_own_loss(models: tuple[Any, Any]) -> None:
    student, _ = models
    taught = lesson(None)
    text = windows(4, 12)[taught._order.at(0)]
    torch.testing.assert_close(taught.loss(student, 0), student(text, labels=text).loss)
    measured = taught.evaluate(student)
    assert measured["loss"] == measured["cross_entropy"]


def test_a_student_that_is_its_teacher_is_measured_as_such(models: tuple[Any, Any]) -> None:
    student, teacher = models
    measured = lesson(deepcopy(student), mix=1.0).evaluate(student)
    assert measured["top1"] == 1.0
    assert [measured[name] for name in ("loss", "kl", "reverse_kl")] == pytest.approx([0, 0, 0], abs=1e-6)
    apart = lesson(teacher, mix=1.0).evaluate(student)
    assert apart["kl"] > 0.01
    assert apart["top1"] < 1


def test_a_student_writes_what_transformers_would_have_it_write(models: tuple[Any, Any]) -> None:
    """With keys and values kept: each token is drawn from what the model says of all before it."""
    student, _ = models
    prompts = windows(3, 4)
    torch.manual_seed(5)
    written = continued(student, prompts, 10, temperature=0.7)
    tokens = prompts
    torch.manual_seed(5)
    with torch.no_grad():
        for _ in range(6):  # the whole text read anew for each token
            chances = torch.softmax(student(tokens).logits[:, -1] / 0.7, -1)
            tokens = torch.cat([tokens, torch.multinomial(chances, 1)], 1)
    assert torch.equal(written, tokens)
    assert torch.equal(written[:, :4], prompts)


def test_sampling_leaves_the_mode_and_the_gradients_alone(models: tuple[Any, Any]) -> None:
    student, _ = models
    student.train()
    written = continued(student, windows(2, 4), 6)
    assert student.training
    assert not written.requires_grad
    student.eval()
    assert torch.equal(continued(student, windows(2, 6), 6), windows(2, 6))


def test_the_share_of_steps_on_its_own_text_is_kept(models: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And the same steps every time, each with a prompt of real text."""
    student, teacher = models
    asked: list[tuple[int, int]] = []

    def seen(model: Any, prompts: torch.Tensor, length: int, **more: float) -> torch.Tensor:
        asked.append((prompts.shape[1], length))
        return continued(model, prompts, length, **more)

    monkeypatch.setattr(logits, "continued", seen)
    taught = lesson(teacher, on_policy=0.5)
    own = [step for step in range(400) if taught._prompt(step, 12) is not None]
    assert 160 < len(own) < 240
    assert own == [step for step in range(400) if lesson(teacher, on_policy=0.5)._prompt(step, 12) is not None]
    for step in range(20):
        taught.loss(student, step)
    assert len(asked) == len([step for step in own if step < 20])
    assert all(3 <= prompt <= 6 and length == 12 for prompt, length in asked)
    assert all(lesson(teacher)._prompt(step, 12) is None for step in range(50))


def test_on_its_own_text_only_what_it_wrote_counts(models: tuple[Any, Any]) -> None:
    """The divergence at the positions whose next token it drew, and no cross-entropy, whatever the mix."""
    student, teacher = models
    taught = lesson(teacher, on_policy=1.0, mix=0.2, divergence="reverse_kl")
    prompt = taught._prompt(3, 12)
    assert prompt is not None
    torch.manual_seed(8)
    loss = taught.loss(student, 3)
    torch.manual_seed(8)
    text = continued(student, windows(4, 12)[taught._order.at(3)][:, :prompt], 12)
    with torch.no_grad():
        apart = divergence("reverse_kl", teacher(text).logits, student(text).logits)[:, prompt - 1 : -1]
    torch.testing.assert_close(loss.detach(), apart.mean())


def test_the_shortest_text_can_be_its_own(models: tuple[Any, Any]) -> None:
    student, teacher = models
    stage = Distill(steps=1, batch=2, length=2, on_policy=1.0, mix=0.0)
    taught = LogitLesson(stage, teacher, windows(2, 2), windows(2, 2))
    assert bool(taught.loss(student, 0).isfinite())


def test_on_policy_brings_the_student_nearer_where_it_goes_itself(tmp_path: Path) -> None:
    """A teacher that was shaken finds back: reverse KL on text of its own, after new prompts, halves in 30 steps."""
    teacher = decoder(Checkpoint.open(tiny_decoder(tmp_path / "m", seed=1, initializer_range=0.1)))
    student = deepcopy(teacher)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in student.parameters():
            weight.mul_(1 + torch.rand_like(weight))
    taught = lesson(teacher, rows=8, on_policy=1.0, divergence="reverse_kl")
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)

    def mismatch() -> float:
        torch.manual_seed(0)
        text = continued(student, windows(16, 4, seed=3), 12)
        with torch.no_grad():
            return float(divergence("reverse_kl", teacher(text).logits, student(text).logits)[:, 3:-1].mean())

    before = mismatch()
    for step in range(30):
        optimizer.zero_grad()
        torch.manual_seed(step)
        taught.loss(student, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert mismatch() < before / 2
