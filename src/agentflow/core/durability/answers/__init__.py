"""What an answer to an interrupt may be: the type a node asks for, its JSON Schema, and what a person types.

kind = answer_type(Verdict)            kind.schema ──▶ stored with the question, shown to people
kind.accept({"publish": True})         ──▶ Verdict(publish=True), or an AnswerError that says what is wanted where
check_answer(value, schema)            the same judgement in a process that has no types
parse_answer("y", schema)              ──▶ True: from a terminal
describe_schema(schema)                ──▶ "yes/no"
"""

from agentflow.core.durability.answers.answer_type import AnswerType, answer_type
from agentflow.core.durability.answers.checking import check_answer
from agentflow.core.durability.answers.describing import describe_schema
from agentflow.core.durability.answers.parsing import parse_answer

__all__ = ["AnswerType", "answer_type", "check_answer", "describe_schema", "parse_answer"]
