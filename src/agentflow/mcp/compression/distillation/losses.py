"""How far a student's distribution over the next token is from its teacher's; and that for long texts in little memory.

forward_kl   KL(teacher ‖ student): the student must cover all that the teacher may say
reverse_kl   KL(student ‖ teacher): it must say nothing that the teacher would not
jsd          generalised Jensen–Shannon between the two (Agarwal et al., GKD, arXiv:2306.13649, equation 2)

All take logits of shape (…, vocabulary), give nats of shape (…), are ≥ 0, and 0 where both say the same. `temperature`
flattens both distributions, and the result is multiplied by its square, so that gradients stay of one size (Hinton et
al., arXiv:1503.02531).

Logits of tokens × vocabulary in float32 are what takes the memory: 2,048 tokens of a vocabulary of 128,000 are 1 GB,
and a loss makes five such of them. `in_portions` makes logits, loss and gradient for a few positions at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from agentflow.mcp.compression.recipe import Divergence

__all__ = ["Divergence", "divergence", "forward_kl", "in_portions", "jsd", "portion", "reverse_kl"]

PORTION: Final = 1 << 23  # logits that exist at once, a model: 32 MB of float32


def forward_kl(teacher: torch.Tensor, student: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """KL(teacher ‖ student) · temperature²."""
    p, q = _logs(teacher, temperature), _logs(student, temperature)
    return _kl(p, q) * temperature**2


def reverse_kl(teacher: torch.Tensor, student: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """KL(student ‖ teacher) · temperature²."""
    p, q = _logs(teacher, temperature), _logs(student, temperature)
    return _kl(q, p) * temperature**2


def jsd(teacher: torch.Tensor, student: torch.Tensor, *, beta: float = 0.5, temperature: float = 1.0) -> torch.Tensor:
    """β KL(p ‖ m) + (1 − β) KL(q ‖ m) with m = β p + (1 − β) q, p the teacher's and q the student's; · temperature².

    0 < β < 1. Divided by β it nears forward KL as β → 0, divided by 1 − β it nears reverse KL as β → 1. At ½ it is
    symmetric and at most ln 2.
    """
    p, q = _logs(teacher, temperature), _logs(student, temperature)
    mixture = torch.logaddexp(p + math.log(beta), q + math.log1p(-beta))
    return (beta * _kl(p, mixture) + (1 - beta) * _kl(q, mixture)) * temperature**2


def divergence(
    kind: Divergence, teacher: torch.Tensor, student: torch.Tensor, *, temperature: float = 1.0
) -> torch.Tensor:
    """The one of that name; "jsd" with β = ½."""
    of = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jsd": jsd}[kind]
    return of(teacher, student, temperature=temperature)


def _logs(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.log_softmax(logits.float() / temperature, dim=-1)


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) of logarithms. What p holds impossible adds nothing, whatever q says of it."""
    terms = p.exp() * (p - q)
    return torch.where(p == -math.inf, 0.0, terms).sum(dim=-1)


# ---- in little memory ----------------------------------------------------------------------------------------

Part = Callable[[torch.Tensor, slice], torch.Tensor]


def portion(vocabulary: int) -> int:
    """Positions whose logits may exist at once."""
    return max(1, PORTION // vocabulary)


def in_portions(part: Part, hidden: torch.Tensor, weights: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """The sum of `part(hidden[some], some)` over all positions, `size` of them at a time: a scalar with a gradient.

    `hidden` has shape (positions, hidden size). `weights` are all parameters that `part` uses. Gradients of a portion
    are made as soon as its loss is, so its logits are gone before those of the next come to be.
    """
    total: torch.Tensor = _Portions.apply(part, size, hidden, *weights)  # type: ignore[no-untyped-call]
    return total


class _Portions(torch.autograd.Function):
    """The loss is a sum and the last to be computed: its gradient is known up to a factor as soon as it is."""

    @staticmethod
    def forward(ctx: Any, part: Part, size: int, hidden: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), device=hidden.device)
        wanted = [weight for weight in weights if weight.requires_grad]
        sums = [torch.zeros_like(weight) for weight in wanted]
        gradient = torch.empty_like(hidden)
        for at in range(0, len(hidden), size):
            some = slice(at, min(at + size, len(hidden)))
            total += _portion(part, hidden, some, wanted, gradient, sums)
        ctx.gradient = gradient
        ctx.sums = [sums.pop(0) if weight.requires_grad else None for weight in weights]
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        [factor] = outer
        return None, None, ctx.gradient * factor, *(None if each is None else each * factor for each in ctx.sums)


def _portion(
    part: Part,
    hidden: torch.Tensor,
    some: slice,
    weights: Sequence[torch.Tensor],
    gradient: torch.Tensor,
    sums: Sequence[torch.Tensor],
) -> torch.Tensor:
    """The loss of some positions; their gradient is put in its place, that of the weights is added."""
    inner = hidden[some].detach().requires_grad_()
    with torch.enable_grad():
        loss = part(inner, some)
    first, *others = torch.autograd.grad(loss, [inner, *weights])
    gradient[some] = first
    for total, each in zip(sums, others, strict=True):
        total += each
    return loss.detach()
