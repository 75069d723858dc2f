"""How the numbers of a layer are written down: "w4g64" is 4 bits a weight, 64 of which share a scale.

w4g64        weights alone, 4 bits, groups of 64 input channels, symmetric about zero
w4g64-asym   the same with a zero point a group
w8           8 bits, one scale an output channel
w8a8         weights and activations, 8 bits; a scale a token, found while the model runs
w8a8-static  the same with one scale a layer for the activations, found beforehand

codes = clamp(round(weight / scale) + zero, −2^(bits−1), 2^(bits−1) − 1);  weight ≈ (codes − zero) · scale
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agentflow.errors import RecipeError

__all__ = ["BITS", "Scheme"]

BITS = (2, 3, 4, 8)
_FORM = re.compile(r"w(?P<bits>\d+)(?:g(?P<group>\d+))?(?P<acts>a8)?(?:-(?P<how>sym|asym|static|dynamic))?")


@dataclass(frozen=True, slots=True)
class Scheme:
    """Bits, groups and symmetry of one quantised layer. `group=None`: one scale for each output channel."""

    bits: int
    group: int | None = None
    symmetric: bool = True
    activation_bits: int | None = None
    static: bool = False

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Raises RecipeError for a word that is no scheme."""
        match = _FORM.fullmatch(text)
        if match is None or int(match["bits"]) not in BITS:
            raise RecipeError(
                f"{text!r} is no scheme: write w4g64 (bits 2, 3, 4 or 8; group), w4g64-asym, w8, w8a8 or w8a8-static"
            )
        bits, group, how = int(match["bits"]), match["group"], match["how"]
        if match["acts"] and (bits != 8 or group or how in ("sym", "asym")):
            raise RecipeError(f"{text!r}: activations of 8 bits go with w8a8 and w8a8-static alone")
        if not match["acts"] and how in ("static", "dynamic"):
            raise RecipeError(f"{text!r}: {how} is about activations; write w8a8-{how}")
        if bits < 8 and group is None:
            raise RecipeError(f"{text!r}: fewer than 8 bits need groups, as in w{bits}g64")
        if group is not None and int(group) < 8:
            raise RecipeError(f"{text!r}: a group has at least 8 channels")
        return cls(
            bits=bits,
            group=int(group) if group else None,
            symmetric=how != "asym",
            activation_bits=8 if match["acts"] else None,
            static=how == "static",
        )

    def __str__(self) -> str:
        name = f"w{self.bits}" + (f"g{self.group}" if self.group else "")
        if self.activation_bits:
            return name + "a8" + ("-static" if self.static else "")
        return name if self.symmetric else f"{name}-asym"

    @property
    def lowest(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def bits_a_weight(self, columns: int) -> float:
        """Scales of 16 bits and zero points included, of a layer with so many input channels."""
        group = self.group or columns
        return self.bits + (16 + (0 if self.symmetric else self.bits)) / group
