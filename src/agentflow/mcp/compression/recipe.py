"""What is to be done to a model, stage by stage: a value that can be written down, compared and checked beforehand.

    Recipe(Prune(depth=0.5), Distill(steps=2000), Quantize("w4g64", method="gptq"), Export("onnx"))

Each stage reads the folder that the one before it wrote. What cannot work together is refused here, before any weight
is read. As YAML (`agentflow compress MODEL --recipe FILE`):

    stages:
      - prune: {depth: 0.5}
      - distill: {steps: 2000}
      - quantize: {scheme: w4g64, method: gptq}
      - export: {target: onnx}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from agentflow.errors import RecipeError
from agentflow.mcp.compression.scheme import Scheme

__all__ = ["Distill", "Export", "Prune", "Quantize", "Recipe", "Sparsify", "Stage"]

QuantizationMethod: TypeAlias = Literal["rtn", "gptq", "awq", "hqq", "smoothquant"]
SparsityMethod: TypeAlias = Literal["magnitude", "wanda", "sparsegpt"]
Divergence: TypeAlias = Literal["forward_kl", "reverse_kl", "jsd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """Take whole parts out: the model really gets smaller and faster. Each number is the share that is *kept*.

    `depth` layers, `width` channels of the feed-forward parts, `heads` groups of attention heads (of keys and values,
    with the queries that read them). What goes is what matters least on the calibration texts. A pruned model is worse
    than it was; let `Distill` follow.
    """

    kind: ClassVar[str] = "prune"
    depth: float = 1.0
    width: float = 1.0
    heads: float = 1.0

    def __post_init__(self) -> None:
        for name in ("depth", "width", "heads"):
            _share(f"Prune({name}=…)", getattr(self, name), whole=True)
        if self.depth == self.width == self.heads == 1.0:
            raise RecipeError("Prune keeps everything: give depth, width or heads below 1")


@dataclass(frozen=True, slots=True)
class Sparsify:
    """Set single weights to zero: for research. **Neither file nor speed gain anything from it by themselves.**

    `sparsity` is the share of zeros; `pattern` is "unstructured" or N:M as "2:4" (N zeros at least in every M
    neighbours). Layers whose names match one of `ignore` (`fnmatch`) stay byte for byte.
    """

    kind: ClassVar[str] = "sparsify"
    sparsity: float = 0.5
    method: SparsityMethod = "wanda"
    pattern: str = "unstructured"
    ignore: tuple[str, ...] = ("lm_head",)

    def __post_init__(self) -> None:
        _share("Sparsify(sparsity=…)", self.sparsity, whole=False)
        _one_of("Sparsify(method=…)", self.method, ("magnitude", "wanda", "sparsegpt"))
        if self.pattern != "unstructured":
            zeros, _, among = self.pattern.partition(":")
            if not (zeros.isdigit() and among.isdigit() and 0 < int(zeros) < int(among)):
                raise RecipeError(f"Sparsify(pattern={self.pattern!r}): write unstructured, or N:M as in 2:4")
            if abs(int(zeros) / int(among) - self.sparsity) > 1e-9:
                raise RecipeError(
                    f"Sparsify: {self.pattern} is a sparsity of {int(zeros) / int(among):g}, not {self.sparsity:g}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill:
    """Train the model to say what the recipe's source says (its logits), on the training texts.

    The loss is `mix` · divergence(teacher, student) · temperature² + (1 − mix) · cross-entropy of the text.
    `steps` optimizer steps of `batch` windows of `length` tokens. `on_policy` is the share of steps whose text the
    student writes itself (GKD). `patience`: stop after so many evaluations without a better one; None never.
    """

    kind: ClassVar[str] = "distill"
    steps: int
    learning_rate: float = 1e-3
    batch: int = 16
    length: int = 128
    temperature: float = 1.0
    mix: float = 0.9
    divergence: Divergence = "forward_kl"
    on_policy: float = 0.0
    warmup: int = 20
    evaluate_every: int = 50
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "length", "evaluate_every"):
            if getattr(self, name) < 1:
                raise RecipeError(f"Distill({name}={getattr(self, name)}): at least 1")
        if not (self.learning_rate > 0 and self.temperature > 0):
            raise RecipeError("Distill: learning_rate and temperature are above 0")
        if not (0 <= self.mix <= 1 and 0 <= self.on_policy <= 1):
            raise RecipeError("Distill: mix and on_policy are shares, from 0 to 1")
        _one_of("Distill(divergence=…)", self.divergence, ("forward_kl", "reverse_kl", "jsd"))


@dataclass(frozen=True, slots=True)
class Quantize:
    """Write weights (and activations) with fewer bits: see `Scheme` for the words.

    `method`: rtn (no calibration), hqq (none either), gptq, awq, smoothquant (w8a8 alone). Layers whose names match one
    of `ignore` (`fnmatch`) stay byte for byte. `budget` chooses bits by layer, by measured sensitivity: "3.5 bits" on
    average over the quantised layers, or "kl 0.02" at most (nats a token, on calibration texts); `scheme` is then what
    the group and symmetry are taken from.
    """

    kind: ClassVar[str] = "quantize"
    scheme: str
    method: QuantizationMethod = "rtn"
    ignore: tuple[str, ...] = ("lm_head",)
    budget: str | None = None

    def __post_init__(self) -> None:
        scheme = Scheme.parse(self.scheme)
        _one_of("Quantize(method=…)", self.method, ("rtn", "gptq", "awq", "hqq", "smoothquant"))
        if self.method == "smoothquant" and not scheme.activation_bits:
            raise RecipeError(f"Quantize: smoothquant is for activations, as in w8a8; {self.scheme} has none")
        if scheme.activation_bits and self.method in ("awq", "hqq"):
            raise RecipeError(f"Quantize: {self.method} is for weights alone, not for {self.scheme}")
        if self.budget is not None:
            self.limit()
            if scheme.activation_bits:
                raise RecipeError("Quantize: a budget chooses the bits of weights alone, not of w8a8")

    def limit(self) -> tuple[Literal["bits", "kl"], float]:
        """What `budget` says. Raises RecipeError where it says nothing."""
        match (self.budget or "").split():
            case [number, "bits"] if _is_number(number) and 2 < float(number) <= 8:
                return "bits", float(number)
            case ["kl", number] if _is_number(number) and float(number) > 0:
                return "kl", float(number)
        raise RecipeError(f"Quantize(budget={self.budget!r}): write '3.5 bits' (above 2, up to 8) or 'kl 0.02'")


EXPORTS: Mapping[str, tuple[str, ...]] = {
    "hf": (),
    "compressed-tensors": (),
    "onnx": ("fp32", "int8", "int4"),
    "gguf": ("f32", "f16", "q8_0", "q6_k", "q5_k", "q4_k_m", "q4_0", "q3_k"),
}


@dataclass(frozen=True, slots=True)
class Export:
    """Write the model for a runtime: hf, compressed-tensors, onnx[:fp32|int8|int4], gguf:f16|q8_0|q4_k_m|….

    Without a kind after the colon, onnx takes the model as it is: weights that `Quantize` wrote keep exactly its codes
    and scales. With one, a model that is still in full precision is quantised by the target's own rule.
    """

    kind: ClassVar[str] = "export"
    target: str

    def __post_init__(self) -> None:
        if self.format not in EXPORTS or (self.type is not None and self.type not in EXPORTS[self.format]):
            known = [f"{name}:{kind}" for name, kinds in EXPORTS.items() for kind in kinds]
            raise RecipeError(
                f"Export({self.target!r}): targets are hf, compressed-tensors, onnx, gguf, {', '.join(known)}"
            )

    @property
    def format(self) -> str:
        return self.target.partition(":")[0]

    @property
    def type(self) -> str | None:
        return self.target.partition(":")[2] or None


Stage: TypeAlias = Prune | Sparsify | Distill | Quantize | Export


class Recipe:
    """Stages, in order. Equal recipes have equal `stages`.

    Raises RecipeError where they contradict each other: no stage at all, anything after `Export`, a second `Quantize`,
    training or pruning what is quantised already, a target that cannot hold what was quantised.
    """

    __slots__ = ("stages",)

    def __init__(self, *stages: Stage) -> None:
        self.stages = stages
        if not stages:
            raise RecipeError("a recipe without stages does nothing")
        for number, stage in enumerate(stages, start=1):
            if not isinstance(stage, Prune | Sparsify | Distill | Quantize | Export):
                raise RecipeError(
                    f"{stage!r} is no stage: use Prune, Sparsify, Distill, Quantize, Export", stage=number
                )
            _fits(stage, stages[: number - 1], number)

    def __repr__(self) -> str:
        return f"Recipe({', '.join(map(repr, self.stages))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and other.stages == self.stages

    def __hash__(self) -> int:
        return hash(self.stages)


def _fits(stage: Stage, before: tuple[Stage, ...], number: int) -> None:
    kinds = [each.kind for each in before]
    if "export" in kinds:
        raise RecipeError(f"{stage.kind} comes after export, which is the end", stage=number)
    if "quantize" in kinds and stage.kind != "export":
        what = {"quantize": "is quantised once"}.get(stage.kind, f"cannot {stage.kind} weights that are codes")
        raise RecipeError(
            f"a model {what if stage.kind == 'quantize' else 'is quantised last: one ' + what}", stage=number
        )
    if "sparsify" in kinds and stage.kind in ("prune", "distill"):
        raise RecipeError(f"{stage.kind} after sparsify would fill the zeros again, or cut them out", stage=number)
    quantized = next((each for each in before if isinstance(each, Quantize)), None)
    if quantized is not None and isinstance(stage, Export):
        _holds(stage, quantized, number)


def _holds(stage: Export, quantized: Quantize, number: int) -> None:
    """Whether the target can hold what was quantised."""
    scheme = Scheme.parse(quantized.scheme)
    if stage.format == "hf":
        raise RecipeError("hf is full precision; a quantised model is exported as compressed-tensors", stage=number)
    if scheme.activation_bits and stage.format in ("onnx", "gguf"):
        raise RecipeError(f"{stage.format} has no {scheme}: export it as compressed-tensors", stage=number)
    if stage.format == "onnx" and stage.type is not None:
        raise RecipeError(f"the weights are {scheme} already; write Export('onnx') to keep them", stage=number)


def _share(name: str, value: float, *, whole: bool) -> None:
    if not (0 < value < 1 or (whole and value == 1)):
        raise RecipeError(f"{name}: {value!r} is no share above 0 and {'up to' if whole else 'below'} 1")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(f"{name}: {value!r} is none of {', '.join(known)}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
