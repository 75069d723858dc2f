"""Pydantic models and msgspec Structs in durable runs: as they were, without a validator having its say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, TypeVar

import pytest
from tests.support.types_apart import types_apart

from agentflow.core.durability.type_registry import registry
from agentflow.core.durability.values import decode, encode, storable
from agentflow.errors import SerializationError

T = TypeVar("T")


@pytest.fixture(autouse=True)
def others_apart() -> Iterator[None]:
    """Other tests load flows that register types of the same names."""
    with types_apart(only=__name__):
        yield


def kept(value: T) -> T:
    found = decode(encode(value, "state"), "state")
    assert type(found) is type(value)
    return found


def stored(name: str, *payload: object) -> str:
    return json.dumps({f"$:{name}": payload[0] if len(payload) == 1 else payload})


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    for name in ("by_type", "by_tag", "_owners"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


# ---- pydantic


def test_a_model_comes_back_equal_with_everything_inside() -> None:
    pydantic = pytest.importorskip("pydantic")

    @storable
    class Line(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        price: Decimal
        due: date | None = None

    @storable
    class Invoice(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        model_config = pydantic.ConfigDict(frozen=True)
        when: datetime
        lines: list[Line]
        tags: tuple[str, ...] = ()
        raw: bytes = pydantic.Field(default=b"", alias="Raw")

    invoice = Invoice(when=datetime(2026, 11, 27, tzinfo=UTC), lines=[Line(price=Decimal("1.50"))], Raw=b"\0")
    found = kept(invoice)

    assert found == invoice
    assert found.model_fields_set == {"when", "lines", "raw"}
    assert found.lines[0].model_dump(exclude_unset=True) == {"price": Decimal("1.50")}
    with pytest.raises(pydantic.ValidationError):
        found.tags = ()


def test_no_validator_runs_so_what_a_program_holds_is_what_it_gets_back() -> None:
    pydantic = pytest.importorskip("pydantic")
    asked = []

    @storable
    class Shouted(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        text: str
        number: int = 0

        @pydantic.field_validator("text")
        @classmethod
        def louder(cls, text: str) -> str:
            asked.append(text)
            return f"{text}!"

        def model_post_init(self, context: object, /) -> None:
            asked.append("post")

    shouted = Shouted(text="no")
    odd = shouted.model_copy(update={"number": "seven"})  # which pydantic lets pass, unseen
    asked.clear()

    assert kept(shouted).text == "no!"
    assert kept(odd).number == "seven"
    assert asked == []


def test_extra_and_private_values_come_back() -> None:
    pydantic = pytest.importorskip("pydantic")

    @storable
    class Open(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        model_config = pydantic.ConfigDict(extra="allow")
        x: int
        _seen: set[int] = pydantic.PrivateAttr(default_factory=set)

        @cached_property
        def twice(self) -> int:
            return self.x * 2

    value = Open.model_validate({"x": 1, "$tuple": [1], "when": date(2026, 11, 27)})
    value._seen.add(3)
    assert value.twice == 2
    found = kept(value)

    assert found == value
    assert found._seen == {3}
    assert found.model_extra == {"$tuple": [1], "when": date(2026, 11, 27)}
    assert found.twice == 2
    assert kept(Open(x=1)).model_extra == {}


def test_root_models_and_models_of_a_type_come_back() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Numbers(pydantic.RootModel[list[int]]):  # type: ignore[misc, name-defined]
        pass

    class Page(pydantic.BaseModel, Generic[T]):  # type: ignore[misc, name-defined]
        items: list[T]

    storable(Numbers)
    storable(Page[int])

    assert kept(Numbers([1, 2])) == Numbers([1, 2])
    assert kept(Page[int](items=[1])) == Page[int](items=[1])
    assert encode(Page[int](items=[1]), "state").startswith('{"$:Page[int]":')
    with pytest.raises(SerializationError, match=r"Page\[str\]"):
        encode(Page[str](items=["a"]), "state")


def test_a_model_that_has_changed_names_its_fields() -> None:
    pydantic = pytest.importorskip("pydantic")

    @storable("invoice")
    class Invoice(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        total: int
        tags: list[str] = pydantic.Field(default_factory=list)
        rank: int = pydantic.Field(default_factory=lambda fields: fields["total"] + 1)
        _cache: dict[str, int] = pydantic.PrivateAttr(default_factory=dict)
        _unset: int = pydantic.PrivateAttr()

    found: Any = decode(stored("invoice", {"total": 1}, []))
    assert found == Invoice(total=1)
    assert (found.tags, found.rank, found._cache, found.model_fields_set) == ([], 2, {}, {"total"})
    for payload, words in (
        (({}, []), "it has no 'total', for which the class has no default"),
        (({"total": 1, "old": 2}, []), "has 'old', which the class no longer has"),
        (({"total": 1}, [], {"more": 1}, {}), "has 'more', which the class no longer has"),
        (({"total": 1}, [], {}, {"_old": 1}), "has '_old', which the class no longer has"),
        (("total", []), "an object is needed"),
        (([1], [], 5), "what was stored as 'invoice' cannot be read"),
    ):
        with pytest.raises(SerializationError, match=words):
            decode(stored("invoice", *payload))


def test_what_cannot_be_stored_in_a_model_is_named_by_its_field() -> None:
    pydantic = pytest.importorskip("pydantic")

    @storable
    class Holder(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        thing: Any
        _lock: Any = pydantic.PrivateAttr(default=None)

    locked = Holder(thing=1)
    locked._lock = object()
    with pytest.raises(SerializationError, match=r"^state\[0\]\.thing: a value of type object"):
        encode([Holder(thing=object())], "state")
    with pytest.raises(SerializationError, match=r"^state\._lock: a value of type object"):
        encode(locked, "state")
    with pytest.raises(SerializationError, match="has no value for its 'thing'"):
        encode(Holder.model_construct(), "state")


def test_a_model_that_is_not_registered_is_refused_and_so_is_a_subclass() -> None:
    pydantic = pytest.importorskip("pydantic")

    @storable
    class Base(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        x: int

    class Sub(Base):  # type: ignore[misc, valid-type]
        pass

    with pytest.raises(SerializationError, match=r"it would come back as a mere .*Base; register it"):
        encode(Sub(x=1), "state")


def test_a_dataclass_of_pydantic_comes_back() -> None:
    pytest.importorskip("pydantic")
    from pydantic.dataclasses import dataclass

    @storable
    @dataclass
    class Checked:
        x: int
        y: list[int]

    assert kept(Checked(1, [2])) == Checked(1, [2])


# ---- msgspec


def test_a_struct_comes_back_equal_with_everything_inside() -> None:
    msgspec = pytest.importorskip("msgspec")

    @storable
    class Line(msgspec.Struct, frozen=True, kw_only=True):  # type: ignore[misc, name-defined, call-arg]
        price: Decimal
        sub: Any = None

    @storable
    class Page(msgspec.Struct, tag="p", array_like=True, rename="camel"):  # type: ignore[misc, name-defined, call-arg]
        when_due: date
        lines: tuple[Any, ...] = ()

    page = Page(date(2026, 11, 27), (Line(price=Decimal("1.50"), sub=Line(price=Decimal(2))),))

    assert kept(page) == page
    assert (
        encode(Page(date(2026, 11, 27)), "s") == '{"$:Page":{"when_due":{"$date":"2026-11-27"},"lines":{"$tuple":[]}}}'
    )


def test_a_struct_holds_what_was_stored_whatever_its_post_init_makes_of_it() -> None:
    msgspec = pytest.importorskip("msgspec")

    @storable
    class Shouted(msgspec.Struct, frozen=True):  # type: ignore[misc, name-defined, call-arg]
        text: str

        def __post_init__(self) -> None:
            msgspec.structs.force_setattr(self, "text", f"{self.text}!")

    assert kept(Shouted("no")).text == "no!"


def test_a_struct_that_has_changed_names_its_fields() -> None:
    msgspec = pytest.importorskip("msgspec")

    @storable("line")
    class Line(msgspec.Struct, kw_only=True):  # type: ignore[misc, name-defined, call-arg]
        price: int
        tags: list[str] = msgspec.field(default_factory=list)

    assert decode(stored("line", {"price": 1})) == Line(price=1)
    with pytest.raises(SerializationError, match="it has no 'price', for which the class has no default"):
        decode(stored("line", {}))
    with pytest.raises(SerializationError, match="has 'old', which the class no longer has"):
        decode(stored("line", {"price": 1, "old": 2}))


def test_what_a_struct_holds_beside_its_fields_is_refused() -> None:
    msgspec = pytest.importorskip("msgspec")

    @storable
    class Loose(msgspec.Struct, dict=True):  # type: ignore[misc, name-defined, call-arg]
        x: int

    loose = Loose(1)
    assert kept(loose) == loose
    loose.y = 2
    with pytest.raises(SerializationError, match="holds 'y' beside its fields"):
        encode(loose, "state")
