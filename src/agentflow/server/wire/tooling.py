"""The tools of a request and how the answer must look, as OpenAI writes them, as values of ours.

{"type": "function", "function": {"name": "weather", "parameters": {…}}}   →  Tool("weather", …)
{"type": "function", "function": {"name": "weather"}}                      →  "weather", the tool to call
{"type": "json_schema", "json_schema": {"name": "person", "schema": {…}}}  →  OutputFormat("person", …)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from agentflow.llm.content import Json
from agentflow.llm.messages import OutputFormat, Tool
from agentflow.server.wire.reading import refuse

__all__ = ["WireChoice", "WireFormat", "WireTool", "choice_of", "format_of", "tools_of"]

_Name: TypeAlias = Annotated[str, Meta(min_length=1)]
_Schema: TypeAlias = dict[str, Json]


class ToolFunction(Struct):
    name: _Name
    description: str | None = None
    parameters: _Schema | None = None
    strict: bool | None = None


class WireTool(Struct, tag_field="type", tag="function"):
    function: ToolFunction


class Named(Struct):
    name: _Name


class NamedChoice(Struct, tag_field="type", tag="function"):
    function: Named


class Allowed(Struct):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedChoice], Meta(min_length=1)]


class AllowedChoice(Struct, tag_field="type", tag="allowed_tools"):
    allowed_tools: Allowed


WireChoice: TypeAlias = Literal["auto", "none", "required"] | NamedChoice | AllowedChoice


class JsonSchema(Struct):
    name: _Name
    schema: _Schema | None = None
    strict: bool | None = None
    description: str | None = None


class TextFormat(Struct, tag_field="type", tag="text"):
    pass


class ObjectFormat(Struct, tag_field="type", tag="json_object"):
    pass


class SchemaFormat(Struct, tag_field="type", tag="json_schema"):
    json_schema: JsonSchema


WireFormat: TypeAlias = TextFormat | ObjectFormat | SchemaFormat


def tools_of(tools: Sequence[WireTool] | None) -> tuple[Tool, ...]:
    """Raises Refusal for two of one name."""
    found: dict[str, Tool] = {}
    for at, wire in enumerate(tools or ()):
        function = wire.function
        if function.name in found:
            refuse(f"tools[{at}].function.name", f"there is another tool called {function.name!r}")
        found[function.name] = Tool(
            function.name, function.description or "", function.parameters or {}, function.strict
        )
    return tuple(found.values())


def choice_of(choice: WireChoice | None, tools: Sequence[Tool]) -> str | tuple[str, ...] | None:
    """Raises Refusal for a tool that is none of the request's, and for a choice that we have no word for."""
    match choice:
        case None:
            return None
        case NamedChoice(function=named):
            return _known(named.name, tools)
        case AllowedChoice(allowed_tools=allowed):
            if allowed.mode == "auto":
                refuse("tool_choice.allowed_tools.mode", "only required is supported; leave the others out")
            return tuple([_known(each.function.name, tools) for each in allowed.tools])
    if choice == "required" and not tools:
        refuse("tool_choice", "it asks for a tool, and there are none")
    return choice if tools else None


def _known(name: str, tools: Sequence[Tool]) -> str:
    if name not in [tool.name for tool in tools]:
        refuse("tool_choice", f"there is no tool called {name!r} in tools")
    return name


def format_of(wire: WireFormat | None) -> OutputFormat | None:
    """None for words. Raises Refusal for a schema that is not there."""
    match wire:
        case None | TextFormat():
            return None
        case ObjectFormat():
            return OutputFormat("answer")
        case SchemaFormat(json_schema=said):
            if said.schema is None:
                refuse("response_format.json_schema.schema", "it is missing", code="missing_required_parameter")
            return OutputFormat(said.name, said.schema, said.strict, said.description)
