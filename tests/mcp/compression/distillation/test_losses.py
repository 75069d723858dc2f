"""Divergences are what their formulas say, and the same in portions as at once."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from agentflow.mcp.compression.distillation import losses
from agentflow.mcp.compression.distillation.losses import (
    Divergence,
    divergence,
    forward_kl,
    in_portions,
    jsd,
    portion,
    reverse_kl,
)

torch.set_num_threads(1)
KINDS: tuple[Divergence, ...] = ("forward_kl", "reverse_kl", "jsd")

logits = st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5).map(torch.tensor)


def drawn(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive(kind: str, p: list[float], q: list[float]) -> float:
    def kl(a: list[float], b: list[float]) -> float:
        return math.fsum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)

    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return {"forward_kl": kl(p, q), "reverse_kl": kl(q, p), "jsd": (kl(p, m) + kl(q, m)) / 2}[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_each_is_its_formula(kind: Divergence, temperature: float) -> None:
    teacher, student = drawn(7, 11), drawn(7, 11, seed=1)
    found = divergence(kind, teacher, student, temperature=temperature)
    for row in range(7):
        p = torch.softmax(teacher[row].double() / temperature, -1).tolist()
        q = torch.softmax(student[row].double() / temperature, -1).tolist()
        assert float(found[row]) == pytest.approx(temperature**2 * naive(kind, p, q), rel=1e-4)


def test_forward_kl_is_pytorchs() -> None:
    teacher, student = drawn(7, 11), drawn(7, 11, seed=1)
    theirs = functional.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True)
    torch.testing.assert_close(forward_kl(teacher, student), theirs.sum(-1))
    torch.testing.assert_close(reverse_kl(teacher, student), forward_kl(student, teacher))


@pytest.mark.parametrize("kind", KINDS)
@given(teacher=logits, student=logits, temperature=st.floats(0.3, 5))
def test_none_is_negative(kind: Divergence, teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> None:
    found = float(divergence(kind, teacher, student, temperature=temperature))
    assert found >= -1e-5 * temperature**2
    assert math.isfinite(found)


@pytest.mark.parametrize("kind", KINDS)
@given(teacher=logits, shift=st.floats(-5, 5), other=st.floats(0.5, 4), at=st.integers(0, 4))
def test_each_is_zero_where_both_say_the_same_and_only_there(
    kind: Divergence, teacher: torch.Tensor, shift: float, other: float, at: int
) -> None:
    """Logits that differ by a constant say the same."""
    assert float(divergence(kind, teacher, teacher + shift)) == pytest.approx(0, abs=1e-5)
    bent = torch.zeros(5)
    bent[at] = other
    assert float(divergence(kind, torch.zeros(5), bent)) > 1e-3


@given(teacher=logits, student=logits)
def test_jsd_is_symmetric_at_a_half_and_at_most_ln_2(teacher: torch.Tensor, student: torch.Tensor) -> None:
    found = float(jsd(teacher, student))
    assert found == pytest.approx(float(jsd(student, teacher)), abs=1e-5)
    assert found <= math.log(2) + 1e-5


def test_jsd_nears_both_kls_at_its_ends() -> None:
    teacher, student = drawn(6, 9, scale=1.0), drawn(6, 9, seed=1, scale=1.0)
    low, high = 1e-3, 1 - 1e-3
    torch.testing.assert_close(
        jsd(teacher, student, beta=low) / low, forward_kl(teacher, student), rtol=0.02, atol=1e-3
    )
    torch.testing.assert_close(
        jsd(teacher, student, beta=high) / (1 - high), reverse_kl(teacher, student), rtol=0.02, atol=1e-3
    )


def test_the_square_of_the_temperature_keeps_gradients_of_one_size() -> None:
    """At high temperatures the gradient nears (student − teacher) / vocabulary, which no longer depends on it."""
    teacher, sizes = drawn(1, 50, scale=1.0), []
    for temperature in (20.0, 40.0):
        student = drawn(1, 50, seed=1, scale=1.0).requires_grad_()
        [gradient] = torch.autograd.grad(forward_kl(teacher, student, temperature=temperature).sum(), student)
        sizes.append(gradient)
    torch.testing.assert_close(sizes[0], sizes[1], rtol=0.2, atol=1e-3)
    difference = drawn(1, 50, seed=1, scale=1.0) - teacher
    torch.testing.assert_close(sizes[1], (difference - difference.mean()) / 50, rtol=0.2, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: Divergence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_logs", lambda each, temperature: torch.log_softmax(each / temperature, -1))  # double
    teacher = drawn(3, 5).double()
    student = drawn(3, 5, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda each: divergence(kind, teacher, each, temperature=1.7), (student,))


def test_what_the_teacher_rules_out_adds_nothing() -> None:
    teacher = torch.tensor([[0.0, 1.0, -math.inf]])
    student = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
    found = forward_kl(teacher, student)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert bool(found.isfinite().all())
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("size", [1, 4, 10, 100])
def test_portions_give_the_loss_and_gradients_of_the_whole(size: int) -> None:
    hidden, head, bias = drawn(10, 6).requires_grad_(), drawn(12, 6, seed=1).requires_grad_(), drawn(12, seed=2)
    teacher = drawn(10, 12, seed=3)

    def part(some_hidden: torch.Tensor, some: slice) -> torch.Tensor:
        return forward_kl(teacher[some], some_hidden @ head.T + bias).sum()

    whole = part(hidden, slice(0, 10)) * 0.3
    wanted = torch.autograd.grad(whole, [hidden, head])
    loss = in_portions(part, hidden, [head, bias], size) * 0.3
    torch.testing.assert_close(loss, whole)
    for found, each in zip(torch.autograd.grad(loss, [hidden, head]), wanted, strict=True):
        torch.testing.assert_close(found, each)


def test_portions_never_hold_all_logits_at_once() -> None:
    seen: list[int] = []

    def part(hidden: torch.Tensor, some: slice) -> torch.Tensor:
        seen.append(len(hidden))
        return hidden.sum()

    in_portions(part, drawn(10, 2).requires_grad_(), [], 4)
    assert seen == [4, 4, 2]
    assert portion(128_000) * 128_000 * 4 <= 32 * 1024 * 1024
    assert portion(10**9) == 1
