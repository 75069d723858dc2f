"""What durable runs keep: values come back equal and of the same type, or are refused when they are written."""

from __future__ import annotations

import copy
import inspect
import json
import os
import subprocess
import sys
from collections import Counter, OrderedDict, namedtuple
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.types_apart import types_apart

from agentflow.core.durability.type_registry import registry
from agentflow.core.durability.values import StoredCause, decode, encode, storable
from agentflow.core.robustness.attempt import mark_owned
from agentflow.errors import (
    AgentFlowError,
    ConfigurationError,
    JoinError,
    LimitExceededError,
    ModelError,
    ModelTimeoutError,
    NodeError,
    OutputError,
    RateLimitError,
    SerializationError,
    ServerError,
    StateKeyError,
    describe,
)

T = TypeVar("T")


@pytest.fixture(autouse=True)
def others_apart() -> Iterator[None]:
    """Other tests load flows that register types of the same names."""
    with types_apart(only=__name__):
        yield


def kept(value: T) -> T:
    """The value after a restart, as it were."""
    found = decode(encode(value, "state"), "state")
    assert type(found) is type(value)
    return found


def same(one: object, other: object) -> bool:
    """Equal, and of the same types all the way down; a nan is the same as a nan, and 0.0 is not the same as -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = zip(one.items(), other.items(), strict=False)
        return len(one) == len(other) and all(same(a, b) for a, b in pairs)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset) and isinstance(other, set | frozenset):
        return sorted(map(described, one)) == sorted(map(described, other))
    return described(one) == described(other)


def described(value: object) -> str:
    """Everything that a value without parts shows, its type included; the parts of a set in their order."""
    if isinstance(value, frozenset | set):
        return f"{type(value)}{sorted(map(described, value))}"
    if isinstance(value, tuple):
        return f"{type(value)}{list(map(described, value))}"
    return f"{type(value)}{value!r}{getattr(value, 'fold', '')}"


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    for name in ("by_type", "by_tag", "_owners"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


# ---- what is known without being registered ------------------------------------------------------------------

try:
    BERLIN: ZoneInfo | None = ZoneInfo("Europe/Berlin")
except ZoneInfoNotFoundError:  # a machine without time-zone data
    BERLIN = None

ZONES = st.one_of(
    st.none(),
    st.just(UTC),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.sampled_from(["X", "UTC", ""])),
    *([st.just(BERLIN)] if BERLIN else []),
)
TEXTS = st.one_of(st.text(), st.sampled_from(["$", "$tuple", "$dict", "$:Money", "$float", "", "\0", "é", "NaN"]))
ATOMS: list[st.SearchStrategy[Any]] = [
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    TEXTS,
    st.binary(),
    st.complex_numbers(),
    st.decimals(),
    st.sampled_from([Decimal("1.50"), Decimal("-0"), Decimal("sNaN7"), Decimal("1E+999999")]),
    st.dates(),
    st.builds(datetime.replace, st.datetimes(), tzinfo=ZONES, fold=st.sampled_from([0, 1])),
    st.builds(time.replace, st.times(), tzinfo=ZONES, fold=st.sampled_from([0, 1])),
    st.timedeltas(),
    ZONES,
    st.uuids(),
    st.sampled_from([Path("notes.md"), Path("/"), Path(), PurePosixPath("a/b"), PureWindowsPath("c:\\a")]),
]
HASHABLE = st.recursive(
    st.one_of(ATOMS).filter(lambda value: not (isinstance(value, Decimal) and value.is_snan())),
    lambda inner: st.one_of(st.frozensets(inner, max_size=3), st.lists(inner, max_size=3).map(tuple)),
    max_leaves=5,
)
VALUES = st.recursive(
    st.one_of(*ATOMS, st.binary().map(bytearray), HASHABLE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(TEXTS, inner, max_size=4),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
    ),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_comes_back_equal_and_of_the_same_types(value: object) -> None:
    text = encode(value, "state")

    assert same(decode(text), value)
    assert encode(decode(text), "state") == text


@given(VALUES)
def test_the_text_is_json_by_the_standard_and_can_be_written_to_a_file(value: object) -> None:
    text = encode(value, "state")

    json.loads(text, parse_constant=pytest.fail)
    assert "\0" not in text
    assert text.encode().decode() == text


@given(VALUES)
def test_a_value_is_not_changed_by_being_stored(value: object) -> None:
    before = copy.deepcopy(value)
    encode({"value": value, "set": {1}}, "state")

    assert same(value, before)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
)


@given(JSON)
def test_what_json_knows_is_stored_as_json_knows_it(value: object) -> None:
    if '{"$' not in (plain := json.dumps(value, ensure_ascii=False, separators=(",", ":"))):
        assert encode(value, "state") == plain


TAGS = st.sampled_from([*sorted(registry.by_tag), "$dict", "$float", "$:Money", "$", "$new"])


@given(
    st.recursive(
        st.one_of(JSON, TAGS),
        lambda inner: st.one_of(st.dictionaries(TAGS, inner, max_size=2), st.lists(inner, max_size=2)),
    )
)
def test_a_dict_that_looks_like_a_tag_is_a_dict(value: object) -> None:
    assert same(kept(value), value)


@given(
    st.recursive(JSON, lambda inner: st.one_of(st.dictionaries(TAGS, inner, max_size=2), st.lists(inner, max_size=3)))
)
def test_a_text_that_nobody_wrote_gives_a_value_or_says_that_it_is_damaged(stored: object) -> None:
    with suppress(SerializationError):
        decode(json.dumps(stored), "state")


@given(st.text())
def test_any_text_at_all_gives_a_value_or_says_that_it_is_damaged(text: str) -> None:
    for hostile in (text, f'{{"$tuple":{text}', f'["$",{text}]'):
        with suppress(SerializationError):
            decode(hostile)


def test_a_dict_keeps_its_order() -> None:
    assert list(kept({"b": 1, "a": 2, "c": 3})) == ["b", "a", "c"]
    assert list(kept({2: "b", 1: "a"})) == [2, 1]


def test_keys_keep_their_types() -> None:
    assert same(kept({1: "int", "1": "str", None: 0, (1, 2): 3}), {1: "int", "1": "str", None: 0, (1, 2): 3})
    assert same(kept({True: "yes"}), {True: "yes"})


@pytest.mark.skipif(BERLIN is None, reason="this machine has no time-zone data")
def test_a_moment_keeps_its_zone_and_which_of_two_equal_times_it_is() -> None:
    berlin = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
    found = kept(berlin)

    assert found.tzinfo is berlin.tzinfo
    assert found.utcoffset() == timedelta(hours=1)
    assert kept(datetime(2026, 11, 27, tzinfo=timezone(timedelta(hours=1), "CET"))).tzname() == "CET"


def test_a_moment_in_utc_is_stored_as_one_reads_it() -> None:
    assert encode(datetime(2026, 11, 27, 13, 0, tzinfo=UTC), "state") == '{"$datetime":"2026-11-27T13:00:00+00:00"}'


def test_two_references_to_one_value_become_two_values() -> None:
    shared = [1]
    found = kept([shared, shared])

    assert found == [[1], [1]]
    assert found[0] is not found[1]


def test_a_set_has_the_same_text_in_every_process() -> None:
    """Texts hash differently in each, so the order of a set does not survive; its text must not depend on it."""
    program = (
        "from agentflow.core.durability.values import encode\n"
        "print(encode({'moon', 'sea', 'tide', 'sky', ('a', 1), frozenset({'x', 'y'})}, 'state'))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }

    assert len(texts) == 1
    assert b"moon" in texts.pop()


# ---- what is refused -----------------------------------------------------------------------------------------


class Money:
    """Of no form that is known."""

    def __init__(self, amount: Decimal, currency: str) -> None:
        self.amount = amount
        self.currency = currency

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and (self.amount, self.currency) == (other.amount, other.currency)

    __hash__ = None  # type: ignore[assignment]


class Bare:
    """Registered nowhere."""


class Shout(str):
    __slots__ = ()


class Local(tzinfo):
    def utcoffset(self, moment: datetime | None, /) -> timedelta:
        return timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "place", "words"),
    [
        (
            {"findings": [1, 2, 3, {"when": object()}]},
            "state.findings[3].when",
            "a value of type object cannot be stored",
        ),
        ({"price": Bare()}, "state.price", "register it with @storable, or keep it in the run's"),
        ([(1, {"x": print})], "state[0][1].x", "of type builtin_function_or_method"),
        ({("a", 1): {2: object()}}, "state[a tuple][2]", "of type object"),
        ({"names": {"a", Money}}, "state.names", "of type type cannot be stored"),
        ([Shout("hey")], "state[0]", "it would come back as a mere str"),
        (OrderedDict(a=1), "state", "it would come back as a mere dict"),
        (Counter("aab"), "state", "it would come back as a mere dict"),
        (namedtuple("Pair", "x y")(1, 2), "state", "it would come back as a mere tuple"),
        ({Shout("key"): 1}, "state[a Shout]", "test_values.Shout"),
        (datetime(2026, 11, 27, tzinfo=Local()), "state", "test_values.Local"),
        (range(3), "state", "of type range"),
        (ValueError("no"), "state", "of type ValueError"),
        ([10**5000], "state[0]", "the int is too large for JSON"),
        ({10**5000: 1}, "state[", "the int is too large for JSON"),
        ({"a": ["\ud800"]}, "state.a[0]", "a lone surrogate"),
        ({"a\ud800": 1}, r"state.a\ud800", "a lone surrogate"),
        (Path(os.fsdecode(b"\xff")), "state", "a lone surrogate"),
    ],
)
def test_what_cannot_be_stored_is_refused_naming_its_place_and_type(value: object, place: str, words: str) -> None:
    with pytest.raises(SerializationError) as failure:
        encode(value, "state")

    assert failure.value.path.startswith(place)
    assert words in str(failure.value)
    str(failure.value).encode()


def test_a_huge_key_is_named_in_few_words() -> None:
    with pytest.raises(SerializationError) as failure:
        encode({10**4000: object()}, "state")

    assert len(str(failure.value)) < 500


def test_a_value_that_holds_itself_is_refused_at_the_place_where_that_shows() -> None:
    inner: list[object] = []
    value = {"a": [1, (inner,)]}
    inner.append({"back": inner})

    with pytest.raises(SerializationError) as failure:
        encode(value, "state")

    assert str(failure.value) == "state.a[1][0][0].back: the value contains itself"


def test_values_deeper_than_any_reader_could_follow_are_refused() -> None:
    value: object = []
    for _ in range(100_000):
        value = [value]

    with pytest.raises(SerializationError, match=r"state\[0\].* nested more than 200 levels deep") as failure:
        encode(value, "state")
    assert len(str(failure.value)) < 200


@pytest.mark.parametrize(
    "layer", [lambda value: [value], lambda value: {1: value}, lambda value: (value,)], ids=["list", "pairs", "tuple"]
)
def test_the_deepest_value_that_can_be_written_can_be_read(layer: Any) -> None:
    """Also by a reader that is called from far down, as code in a flow is."""
    value: object = "end"
    text = ""
    with pytest.raises(SerializationError):
        while True:
            text = encode(value, "state")
            value = layer(value)

    def read(frames: int) -> object:
        return read(frames - 1) if frames else decode(text)

    assert text.count("[") > 50
    assert encode(read(200), "state") == text


def test_a_text_of_endless_depth_is_refused() -> None:
    for text in ("[" * 100_000, '{"$tuple":[' * 100_000):
        with pytest.raises(SerializationError, match=r"^value: nested too deep to be read: "):
            decode(text)


def test_a_stack_that_is_nearly_full_is_said_to_be() -> None:
    value: object = "end"
    for _ in range(150):
        value = [value]

    def store(frames: int) -> str:
        return store(frames - 1) if frames else encode(value, "state")

    assert store(100)
    with pytest.raises(SerializationError, match="state: cannot be stored: maximum recursion depth exceeded"):
        store(sys.getrecursionlimit() - len(inspect.stack(0)) - 100)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "nan",
        "NaN",
        "[Infinity]",
        '{"$tuple":{"a":1}}',
        '{"$set":[[1]]}',
        '{"$bytes":"?"}',
        '{"$bytes":[1]}',
        '{"$date":"tomorrow"}',
        '{"$date":5}',
        '{"$datetime":["2026-11-27",1,2]}',
        '{"$timedelta":[1e300,0,0]}',
        '{"$decimal":"ten"}',
        '{"$decimal":1.5}',
        '{"$uuid":"?"}',
        '{"$path":["a"]}',
        '{"$zone":"../../etc/passwd"}',
        '{"$zone":"/etc/localtime"}',
        '{"$float":[]}',
        '{"$dict":[[1]]}',
        '{"$dict":["ab"]}',
        '{"$dict":[[[1],2]]}',
        '{"$NodeError":[]}',
        '{"$NodeError":[[],{},"words"]}',
        '{"$cause":["ValueError"]}',
        '{"$":1}',
        '{"$later":1}',
    ],
)
def test_a_damaged_text_is_a_serialization_error_that_says_which(text: str) -> None:
    with pytest.raises(SerializationError) as failure:
        decode(text, "runs/r1/write#1")

    assert failure.value.path == "runs/r1/write#1"


def test_a_tag_of_a_newer_version_says_so() -> None:
    with pytest.raises(
        SerializationError, match=r"'\$fraction' is no tag of this version: .* a newer version wrote it"
    ):
        decode('[{"$fraction":[1,3]}]')


# ---- nothing is imported -------------------------------------------------------------------------------------

NAMES = ["os.system", "os:system", "builtins.eval", "antigravity", "test_values.Money", "agentflow.core.flow.AsyncFlow"]


@pytest.mark.parametrize("name", NAMES)
def test_no_text_names_a_thing_that_was_not_registered(name: str) -> None:
    loaded = set(sys.modules)
    payloads: list[object] = [[], {}, "x", ["x"], [["x"], {}, None]]
    texts = [json.dumps({tag + name: payload}) for tag in ("$", "$:") for payload in payloads]

    for text in texts:
        with pytest.raises(SerializationError):
            decode(text)
    assert set(sys.modules) == loaded


def test_the_tags_of_others_are_plain_objects() -> None:
    """What pickles, YAML and other JSON formats use to name a class means nothing here."""
    for tag in ("py/object", "py/reduce", "__class__", "__reduce__", "!!python/object", "lc", "__type__"):
        stored = {tag: "os.system"}
        assert decode(json.dumps(stored)) == stored


def test_a_name_that_is_not_registered_says_what_to_do() -> None:
    with pytest.raises(SerializationError) as failure:
        decode('{"a":{"$:Invoice":{}}}', "inputs of run 7")

    assert str(failure.value) == (
        "inputs of run 7: no type is registered as 'Invoice': register it with @storable before the run is resumed"
    )


# ---- types of one's own --------------------------------------------------------------------------------------

storable("values/money", Money, to=lambda money: [money.amount, money.currency], back=lambda parts: _money(parts))


def _money(parts: list[Any]) -> Money:
    amount, currency = parts
    return Money(amount, currency)


@storable("values/colour")
class Colour(Enum):
    RED = "#f00"
    CRIMSON = "#f00"  # noqa: PIE796 - another name for RED
    GREEN = object()


@storable("values/size")
class Size(IntEnum):
    SMALL = 1


@storable("values/mood")
class Mood(StrEnum):
    GLAD = auto()


@storable("values/rights")
class Rights(Flag):
    READ = auto()
    WRITE = auto()


@storable("values/point")
class Point(NamedTuple):
    x: int
    y: int = 0


@storable("values/finding")
@dataclass
class Finding:
    where: Path
    when: datetime
    price: Money | None = None
    tags: frozenset[str] = frozenset()
    sorts: ClassVar[int] = 3


@storable("values/frozen")
@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    finding: Finding
    sub: Frozen | None = None


@storable("values/counted")
@dataclass
class Counted:
    """It is not made anew: `made` would grow, and `start` would be asked for again."""

    start: InitVar[int]
    total: int = field(init=False)
    made: ClassVar[int] = 0

    def __post_init__(self, start: int) -> None:
        Counted.made += 1
        self.total = start * 2

    @cached_property
    def words(self) -> str:
        return f"{self.total} in all"


@storable("values/box")
@dataclass
class Box(Generic[T]):
    content: T


@storable("values/shouting")
@dataclass
class Shouting:
    text: str

    def __post_init__(self) -> None:
        self.text += "!"


FINDING = Finding(
    Path("a.md"), datetime(2026, 11, 27, tzinfo=UTC), Money(Decimal("1.50"), "EUR"), frozenset({"b", "a"})
)


@pytest.mark.parametrize(
    "value",
    [
        Money(Decimal("1.50"), "EUR"),
        Colour.RED,
        Colour.CRIMSON,
        Colour.GREEN,
        Size.SMALL,
        Mood.GLAD,
        Rights.READ,
        Rights.READ | Rights.WRITE,
        Rights(0),
        Point(1),
        {Point(1, 2): Size.SMALL},
        {Size.SMALL: 1},
        FINDING,
        Frozen(finding=FINDING, sub=Frozen(finding=FINDING)),
        Counted(3),
        Box([Box((1, 2))]),
        Box[int](5),
        Shouting("no"),
    ],
)
def test_a_registered_type_comes_back(value: object) -> None:
    assert same_parts(kept(value), value)


def same_parts(one: object, other: object) -> bool:
    return one == other and type(one) is type(other)


def test_a_dataclass_is_not_made_anew() -> None:
    counted = Counted(3)
    made = Counted.made
    assert counted.words == "6 in all"

    found = kept(counted)

    assert Counted.made == made
    assert found.words == "6 in all"
    assert kept(Shouting("no")).text == "no!"


def test_a_registered_type_is_stored_under_its_name() -> None:
    assert encode(Size.SMALL, "state") == '{"$:values/size":"SMALL"}'
    assert encode(Point(1), "state") == '{"$:values/point":{"x":1,"y":0}}'
    assert encode(Money(Decimal("1.50"), "EUR"), "s") == '{"$:values/money":[{"$decimal":"1.50"},"EUR"]}'


def test_what_stands_in_a_field_is_named_by_it() -> None:
    with pytest.raises(SerializationError, match=r"^state\.findings\[0\]\.price: a value of type object"):
        encode({"findings": [Finding(Path(), datetime.now(UTC), object())]}, "state")  # type: ignore[arg-type]


def test_a_subclass_has_to_be_registered_for_itself() -> None:
    class Sub(Finding):
        pass

    with pytest.raises(SerializationError, match=r"Sub cannot .* come back as a mere \S*Finding; register it"):
        encode(Sub(Path(), datetime.now(UTC)), "state")


def test_what_stands_beside_the_fields_would_be_lost_and_is_refused() -> None:
    finding = copy.copy(FINDING)
    finding.draft = "x"  # type: ignore[attr-defined]

    with pytest.raises(SerializationError, match="holds 'draft' beside its fields, which would be lost"):
        encode(finding, "state")


def test_a_slot_that_is_no_field_is_not_lost_either(fresh_registry: None) -> None:
    class Base:
        __slots__ = ("secret",)

    @storable
    @dataclass(slots=True)
    class Slotted(Base):
        x: int

    slotted = Slotted(1)
    assert kept(slotted) == slotted
    slotted.secret = 3  # type: ignore[attr-defined]
    with pytest.raises(SerializationError, match="holds 'secret' beside its fields"):
        encode(slotted, "state")


def test_a_field_without_a_value_is_refused() -> None:
    counted = Counted(1)
    del counted.total

    with pytest.raises(SerializationError, match="has no value for its 'total'"):
        encode(counted, "state")


def test_errors_of_ones_own_ways_name_the_type_and_are_chained(fresh_registry: None) -> None:
    def refuse(_: object) -> Any:
        raise LookupError("not today")

    class Odd:
        pass

    storable("odd", Odd, to=refuse, back=refuse)
    with pytest.raises(
        SerializationError, match=r"state\[0\]: a .*Odd cannot be taken apart: LookupError: not"
    ) as wrote:
        encode([Odd()], "state")
    with pytest.raises(SerializationError, match="what was stored as 'odd' cannot be read: LookupError: not") as read:
        decode('{"$:odd":1}', "state")

    assert isinstance(wrote.value.__cause__, LookupError)
    assert isinstance(read.value.__cause__, LookupError)


def test_a_way_that_never_ends_is_too_deep(fresh_registry: None) -> None:
    class Endless:
        pass

    storable("endless", Endless, to=lambda value: [value], back=lambda parts: parts[0])
    with pytest.raises(SerializationError, match="contains itself"):
        encode(Endless(), "state")


# ---- classes that have changed -------------------------------------------------------------------------------


def stored(name: str, **fields: object) -> str:
    return json.dumps({f"$:{name}": fields})


def test_a_field_that_came_since_gets_its_default(fresh_registry: None) -> None:
    @storable("note")
    @dataclass
    class Note:
        text: str
        tags: list[str] = field(default_factory=list)
        rank: int = 3

    first, second = decode(stored("note", text="a")), decode(stored("note", text="a"))

    assert first == Note("a", [], 3)
    assert isinstance(first, Note)
    assert isinstance(second, Note)
    assert first.tags is not second.tags


def test_a_field_that_came_since_without_a_default_is_named(fresh_registry: None) -> None:
    @storable("note")
    @dataclass
    class Note:
        text: str
        tax: int

    with pytest.raises(SerializationError, match=r"Note does not fit .* no 'tax', for which the class has no default"):
        decode(stored("note", text="a"))


def test_fields_that_are_gone_are_named(fresh_registry: None) -> None:
    @storable("note")
    @dataclass
    class Note:
        text: str

    @storable("pair")
    class Pair(NamedTuple):
        x: int

    for name, fields in (("note", {"text": "a"}), ("pair", {"x": 1})):
        with pytest.raises(SerializationError, match="has 'old', 'older', which the class no longer has"):
            decode(stored(name, **fields, old=1, older=2))


def test_a_named_tuple_has_defaults_too() -> None:
    assert decode(stored("values/point", x=1)) == Point(1, 0)
    with pytest.raises(SerializationError, match="no 'x'"):
        decode(stored("values/point", y=1))


def test_a_member_that_is_gone_is_named() -> None:
    with pytest.raises(SerializationError, match="Colour no longer has a member 'BLUE'"):
        decode('{"$:values/colour":"BLUE"}')
    with pytest.raises(SerializationError, match="values/rights"):
        decode('{"$:values/rights":64}')


def test_a_stored_thing_of_another_shape_is_refused() -> None:
    for text in ('{"$:values/finding":[1]}', '{"$:values/point":"x"}', '{"$:values/size":1}', '{"$:values/mood":[]}'):
        with pytest.raises(SerializationError):
            decode(text)


# ---- registering ---------------------------------------------------------------------------------------------


def test_the_name_is_the_class_name_unless_another_is_given(fresh_registry: None) -> None:
    @storable
    @dataclass
    class Invoice:
        total: int

    @storable("receipt/1")
    @dataclass
    class Receipt:
        total: int

    assert encode([Invoice(1), Receipt(2)], "s") == '[{"$:Invoice":{"total":1}},{"$:receipt/1":{"total":2}}]'


def test_the_class_is_handed_back_unchanged(fresh_registry: None) -> None:
    @dataclass
    class Plain:
        x: int

    before = dict(vars(Plain))
    assert storable(Plain) is Plain
    assert storable("plain")(Plain) is Plain
    assert storable("plainer", Plain) is Plain
    assert dict(vars(Plain)) == before


def test_two_classes_under_one_name_are_refused_naming_both(fresh_registry: None) -> None:
    @storable("thing")
    @dataclass
    class One:
        x: int

    @dataclass
    class Two:
        x: int

    with pytest.raises(ConfigurationError, match=r"One and .*\.Two would both be stored as 'thing'"):
        storable("thing", Two)
    assert kept(One(1)) == One(1)


def test_a_class_of_a_reloaded_module_takes_the_place_of_the_earlier_one(fresh_registry: None) -> None:
    def reload() -> type:
        @storable
        @dataclass
        class Reloaded:
            x: int

        return Reloaded

    old, new = reload(), reload()

    assert type(decode(stored("Reloaded", x=1))) is new
    assert kept(new(1)) == new(1)
    with pytest.raises(SerializationError):  # it would come back as another class
        encode(old(1), "state")


def test_a_class_may_be_renamed_by_a_second_name(fresh_registry: None) -> None:
    @dataclass
    class Bill:
        x: int

    storable("old", Bill)
    storable("new", Bill)

    assert encode(Bill(1), "state") == '{"$:new":{"x":1}}'
    assert decode(stored("old", x=1)) == decode(stored("new", x=1)) == Bill(1)


def test_a_type_of_another_library_is_registered_with_its_ways(fresh_registry: None) -> None:
    storable("counter", Counter, to=dict, back=Counter)
    storable("namespace", SimpleNamespace, to=lambda it: dict(vars(it)), back=lambda fields: SimpleNamespace(**fields))

    assert kept(Counter("aab")) == Counter("aab")
    assert kept(SimpleNamespace(a=(1,))) == SimpleNamespace(a=(1,))


def test_a_class_that_says_nothing_of_itself_needs_its_ways(fresh_registry: None) -> None:
    with pytest.raises(
        ConfigurationError, match=r"Plain is no dataclass.*to=.*back=.*@storable stands above @dataclass"
    ):

        @storable
        class Plain:
            pass


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: storable(5),
        lambda: storable("five", 5),
        lambda: storable("list", list[int]),
        lambda: storable("", Money, to=vars, back=vars),
        lambda: storable("m", Money, to=vars),
        lambda: storable("m", Money, back=vars),
        lambda: storable("m", to=vars, back=vars),
        lambda: storable("m", date, to=str, back=date.fromisoformat),
        lambda: storable("e", NodeError),
        lambda: storable("s", str),
        lambda: storable("s", dict, to=dict, back=dict),
    ],
)
def test_what_cannot_be_registered_is_refused(fresh_registry: None, wrong: Any) -> None:
    before = dict(registry.by_type)
    with pytest.raises(ConfigurationError):
        wrong()
    assert registry.by_type == before


# ---- errors --------------------------------------------------------------------------------------------------


def failed(error: BaseException, node: str = "flow/a#1") -> NodeError:
    failure = NodeError(node, "exec", 2, error)
    failure.__cause__ = error
    return failure


def test_a_node_error_comes_back_with_its_text_attributes_and_siblings() -> None:
    failure = failed(ServerError("down", provider="p", status=503, retry_after=2.5))
    failure.siblings = (failed(ValueError("odd"), "flow/b#1"),)
    failure.add_note("attempt 1: down")

    found = kept({"errors": [failure]})["errors"][0]

    assert str(found) == str(failure)
    assert (found.node, found.phase, found.attempt, found.retryable) == ("flow/a#1", "exec", 2, True)
    assert found.__notes__ == ["attempt 1: down"]
    assert [str(error) for error in found.siblings] == ["flow/b#1 failed in exec, attempt 2: ValueError: odd"]
    assert isinstance(found.siblings[0], NodeError)


def test_a_cause_of_ours_comes_back_as_it_was() -> None:
    cause = kept(failed(ServerError("down", provider="p", status=503, retry_after=2.5))).__cause__

    assert isinstance(cause, ServerError)
    assert (cause.provider, cause.status, cause.retry_after, str(cause)) == ("p", 503, 2.5, "p: down (HTTP 503)")


def test_another_cause_comes_back_in_words() -> None:
    deep = ServerError("down")
    deep.__cause__ = OSError(111, "refused")
    cause = kept(failed(deep)).__cause__

    assert cause is not None
    stored_cause = cause.__cause__
    assert isinstance(stored_cause, StoredCause)
    assert stored_cause.type_name == "ConnectionRefusedError"
    assert str(stored_cause) == "ConnectionRefusedError: [Errno 111] refused" == describe(deep.__cause__)


def test_a_cause_is_never_in_the_way() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Ours(AgentFlowError):
        pass

    endless = ValueError("a")
    endless.__cause__ = endless
    nested = ServerError("a")
    nested.__cause__ = nested
    odd = ModelError("x")
    odd.message = object()  # type: ignore[assignment]

    for error in (Mute(), Ours("mine"), endless, nested, odd, ValueError("\ud800"), KeyboardInterrupt()):
        assert str(kept(failed(ValueError("x")))) == "flow/a#1 failed in exec, attempt 2: ValueError: x"
        failure = failed(ValueError("x"))
        failure.__cause__ = error
        found = kept(failure).__cause__
        assert isinstance(found, StoredCause | ServerError)


def test_the_failures_of_a_join_are_kept_each_as_well_as_can_be() -> None:
    found = kept(JoinError("f/(a, b)", 2, [failed(ValueError("no")), LookupError("odd")]))

    assert [type(error) for error in found.failures] == [NodeError, StoredCause]
    assert found.need == 2
    assert "ValueError: no" in str(found)


def test_an_attribute_with_a_default_is_left_out_where_it_cannot_be_stored() -> None:
    failure = OutputError("no number", raw="seven")
    failure.response = object()

    found = kept(failure)

    assert found.response is None
    assert (found.raw, found.problem) == ("seven", "no number")


def test_an_attribute_without_one_is_named() -> None:
    odd = ModelError("x")
    odd.code = object()  # type: ignore[assignment]

    with pytest.raises(SerializationError, match=r"^state\.error\.code: a value of type object"):
        encode({"error": odd}, "state")


def test_a_mark_of_this_process_is_not_kept() -> None:
    failure = failed(ValueError("x"))
    mark_owned(failure)

    assert vars(kept(failure)).keys() == vars(failed(ValueError("x"))).keys()


def test_an_error_of_ones_own_is_registered_like_any_type(fresh_registry: None) -> None:
    @storable
    class TooDear(AgentFlowError):
        retryable = True

        def __init__(self, price: Decimal) -> None:
            super().__init__(f"{price} is too dear")
            self.price = price

    cause = kept(failed(TooDear(Decimal("9.99")))).__cause__

    assert isinstance(cause, TooDear)
    assert (cause.price, str(cause)) == (Decimal("9.99"), "9.99 is too dear")


@pytest.mark.parametrize(
    "error",
    [
        StateKeyError("topci", ["topic"]),
        ModelTimeoutError("first byte", 3.0, provider="p"),
        RateLimitError("slow", retry_after=1.0),
        LimitExceededError("dollars", 1.0, float("inf")),
        SerializationError("state.x", "no"),
    ],
    ids=repr,
)
def test_errors_of_ours_come_back_with_their_attributes(error: AgentFlowError) -> None:
    found = kept(error)

    assert str(found) == str(error)
    assert found.args == error.args
    assert vars(found) == vars(error)


def test_every_error_of_ours_has_a_form() -> None:
    def below(kind: type[AgentFlowError]) -> Iterator[type[AgentFlowError]]:
        yield kind
        for sub in kind.__subclasses__():
            yield from below(sub)

    ours = {kind for kind in below(AgentFlowError) if kind.__module__ == "agentflow.errors"}
    assert ours <= registry.by_type.keys()


def test_paths_are_those_of_this_system() -> None:
    assert type(kept(Path("a"))) is type(Path())
    assert encode(PurePath("a"), "s") == ('{"$windows_path":"a"}' if os.name == "nt" else '{"$posix_path":"a"}')


def test_ids_come_back() -> None:
    assert kept(UUID(int=7)) == UUID(int=7)
