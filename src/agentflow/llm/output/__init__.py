"""Typed answers: a Python type as a schema for the model, and its JSON as a value of that type."""

from agentflow.llm.output.output_type import Misfit, OutputType

__all__ = ["Misfit", "OutputType"]
