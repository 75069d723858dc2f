"""Functions as tools: what a model is told about a function, and a model's call as a call of it.

    def weather(city: str, days: int = 1) -> Forecast:
        '''The weather forecast.

        Args:
            city: Where, in English.
        '''

    function_tool(weather)  ──▶  FunctionTool: .tool = Tool("weather", "The weather forecast.", {city: …, days: …})
    ToolCall(arguments)  ──bind──▶  {"city": "Paris"}  ──call──▶  Forecast(…)  ──result_content──▶  what the model reads

The parameters are a msgspec.Struct that is made from the signature: one with a default may be left out, one without an
annotation takes anything. Descriptions come from `Annotated[str, "words"]`, or from the docstring.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter
from types import FunctionType
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET

from agentflow.core.node import is_async
from agentflow.core.threads import call_in_thread
from agentflow.errors import ConfigurationError, SerializationError, ToolArgumentsError
from agentflow.llm.content import Audio, Document, Image, ResultContent, Text, ToolCall, plain
from agentflow.llm.messages import Tool
from agentflow.llm.output.output_type import Misfit, converted
from agentflow.llm.output.strict_schema import Schema, strict_schema
from agentflow.llm.output.type_schema import noted, schema_of
from agentflow.llm.tools.docstrings import told

__all__ = ["FunctionTool", "function_tool", "result_content"]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TAKEN: Final = frozenset({"auto", "none", "required"})  # words of tool_choice
_RESULT_PARTS: Final = (Text, Image, Document, Audio)
_MEDIA_MARKS: Final = ('{"type":"image",', '{"type":"document",', '{"type":"audio",')  # what media are written as


@dataclass(frozen=True, slots=True, eq=False)
class FunctionTool:
    """A function that a model may call; made by `function_tool`."""

    tool: Tool
    function: Callable[..., object]
    is_async: bool
    parameters: type[msgspec.Struct]
    """The parameters as fields; those with a default are UNSET where a call leaves them out."""
    schema: Schema
    """Their schema before it was made strict."""
    in_order: Mapping[str, object]
    """Parameters that are given by their place alone, and their defaults."""

    def bind(self, call: ToolCall) -> Mapping[str, object]:
        """The arguments of a call in the types of the signature; those left out are not in it.

        Raises ToolArgumentsError, in words for the model.
        """
        if call.invalid is not None:
            raise ToolArgumentsError(self.tool.name, call.invalid)
        try:
            found = converted(call.arguments, self.parameters, self.schema)
        except Misfit as error:
            raise ToolArgumentsError(self.tool.name, f"the arguments do not fit: {error}") from error
        named = {name: getattr(found, name) for name in self.parameters.__struct_fields__}
        return {name: value for name, value in named.items() if value is not UNSET}

    async def call(self, call: ToolCall) -> object:
        """Call the function with the arguments of a model's call; what it returns or raises is handed on.

        A sync function runs in a thread, with the caller's context variables. Raises ToolArgumentsError.
        """
        named = dict(self.bind(call))
        placed = [named.pop(name, default) for name, default in self.in_order.items()]
        bound = functools.partial(self.function, *placed, **named)
        found = bound() if self.is_async else await call_in_thread(bound)
        return await found if inspect.isawaitable(found) else found  # `lambda city: search(city)` is sync, too


def function_tool(
    function: Callable[..., object],
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
) -> FunctionTool:
    """A tool of a function, a method, a partial, or an object that can be called.

    `name` and `description` are the function's own where they are left out. `strict` asks the provider to keep to the
    schema; True is an error where OpenAI's strict subset cannot say it. Raises ConfigurationError, naming the function
    and the parameter, for what a model cannot be asked for.
    """
    called = _checked_name(name or _own_name(function), function)
    words, about = told(function)
    parameters = list(_parameters(function, called))
    struct, schema = _struct(parameters, _hints(function, called), about, called)
    asked = strict_schema(schema) if strict else schema
    if asked is None:
        _refuse(called, "strict=True cannot be kept: free keys, tuples and untyped parameters have no strict schema")
    return FunctionTool(
        Tool(called, words if description is None else description, asked, strict),
        function,
        is_async(function),
        struct,
        schema,
        {each.name: each.default for each in parameters if each.kind is Parameter.POSITIONAL_ONLY},
    )


def result_content(value: object) -> ResultContent:
    """What a function returned as what goes back to the model: words and media as they are, nothing as "", all else as
    JSON. Raises SerializationError for what JSON cannot hold."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, _RESULT_PARTS):
        return (value,)
    if isinstance(value, list | tuple) and any(isinstance(item, _RESULT_PARTS) for item in value):
        return tuple(_part(item) for item in value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise SerializationError(
            "result", "bytes tell a model nothing: return Image(…), Document(…) or Audio(…) of them"
        )
    text = _as_json(value)
    if any(mark in text for mark in _MEDIA_MARKS) and _holds_media(value):
        raise SerializationError(
            "result", f"a model cannot see media inside a {type(value).__name__}: return them, alone or in a list"
        )
    return text


def _part(item: object) -> Text | Image | Document | Audio:
    if isinstance(item, _RESULT_PARTS):
        return item
    content = result_content(item)
    if isinstance(content, str):
        return Text(content)
    raise SerializationError("result", "a list of parts cannot hold another one")


def _holds_media(value: object) -> bool:
    """Whether media stand in what was written as JSON, of which a model could see the base64 at most."""
    if isinstance(value, Image | Document | Audio):
        return True
    inside: Iterable[object] = ()
    if isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inside = value
    elif isinstance(value, msgspec.Struct) or hasattr(type(value), "__dataclass_fields__"):
        names = getattr(value, "__struct_fields__", None) or type(value).__dataclass_fields__  # type: ignore[attr-defined]
        inside = [getattr(value, name, None) for name in names]
    return any(map(_holds_media, inside))


def _as_json(value: object) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=_dumped).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        hint = "return text, media, or what JSON can hold (dataclass, dict, list, number, pydantic model)"
        raise SerializationError("result", f"{type(value).__name__}: {error}; {hint}") from error


def _dumped(value: Any) -> object:
    if callable(dump := getattr(value, "model_dump_json", None)):
        return msgspec.Raw(str(dump()).encode())
    return plain(value)


# ---- the signature -------------------------------------------------------------------------------------------


def _own_name(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _checked_name(name: str, function: object) -> str:
    if name in _TAKEN:
        _refuse(name, f"{name!r} means something else in tool_choice; give another name=")
    if not _NAME.fullmatch(name):
        _refuse(name, "a tool's name has 1 to 64 letters, digits, _ or -; give one with name=")
    if not callable(function):
        _refuse(name, f"a tool is made of a function, not of {type(function).__name__} {function!r}")
    return name


def _struct(
    parameters: list[Parameter], hints: Mapping[str, Any], about: Mapping[str, str], name: str
) -> tuple[type[msgspec.Struct], Schema]:
    """The parameters as a class, and its schema. A default is told in the schema alone, where JSON can say it."""
    fields: list[tuple[str, Any, Any]] = []
    for each in parameters:
        hint = _checked_hint(hints.get(each.name, Any), each.name, name)
        words = noted(hint) or about.get(each.name)
        hint = Annotated[hint, msgspec.Meta(description=words)] if words else hint
        fields.append((each.name, hint, msgspec.NODEFAULT if each.default is Parameter.empty else UNSET))
    struct = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    schema = schema_of(struct)
    for each in parameters:
        if (default := _as_default(each.default)) is not UNSET:
            schema["properties"][each.name]["default"] = default
    return struct, schema


def _checked_hint(hint: Any, parameter: str, name: str) -> Any:
    if hint is object:
        return Any
    try:
        schema_of(hint)
    except ConfigurationError as error:
        raise ConfigurationError(f"the tool {name!r}: {parameter}: {error}") from error
    return hint


def _as_default(value: object) -> object:
    """A default as JSON; UNSET where there is none, or JSON cannot hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return UNSET
    try:
        return msgspec.json.decode(_as_json(value))
    except SerializationError:
        return UNSET


def _parameters(function: Callable[..., object], name: str) -> Iterator[Parameter]:
    """The parameters that a model may give; those that a partial has filled in by name are not its business."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the tool {name!r}: it has no signature to read ({error}); wrap it in a function"
        ) from error
    _refuse_what_yields(function, name)
    _refuse_free_method(function, parameters, name)
    filled = function.keywords if isinstance(function, functools.partial) else {}
    for parameter in parameters:
        if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is Parameter.VAR_POSITIONAL else "**"
            _refuse(
                name, f"a model cannot be told what {stars}{parameter.name} takes; use a list, a dict or named ones"
            )
        if parameter.name not in filled:
            if parameter.name.startswith("__"):
                _refuse(name, f"{parameter.name} is a name of Python's own; a parameter needs another one")
            yield parameter


def _refuse_what_yields(function: Callable[..., object], name: str) -> None:
    inner = _innermost(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        _refuse(name, "it yields, and a model waits for one result; return it")


def _refuse_free_method(function: Callable[..., object], parameters: list[Parameter], name: str) -> None:
    first = parameters[0].name if parameters else ""
    if isinstance(function, FunctionType) and first in ("self", "cls") and "." in function.__qualname__:
        _refuse(name, f"{first} is for no model to give; take the method from an object")


def _hints(function: Callable[..., object], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(_innermost(function), include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigurationError(
            f"the tool {name!r}: {error} in its annotations; they can only name what its module has at the top"
        ) from error


def _innermost(function: Any) -> Any:
    """What has the annotations: below partials, decorators and objects that can be called."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif isinstance(function, type):
            return inspect.getattr_static(function, "__init__")
        elif inspect.isroutine(function):
            return function
        else:
            function = type(function).__call__


def _refuse(name: str, why: str) -> typing.NoReturn:
    raise ConfigurationError(f"the tool {name!r}: {why}")
