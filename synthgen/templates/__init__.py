"""Templates: from a row's fields to messages, and from a teacher's reply back to fields.

In: prompts (`prompts/*.yaml`), the recipe's own templates, rows and replies. Out: messages, fields, records.
Guarantee: everything here is a pure function; only `load_prompt` reads a file.
"""

from synthgen.templates.prompt import Example, Input, Prompt, load_prompt, parse_reply, render_messages
from synthgen.templates.record import RecordTemplate, compile_record
from synthgen.templates.reply import Parsed, Reply, Unusable, split_thinking
from synthgen.templates.template import Template, TemplateError, compile_template

__all__ = [
    "Example",
    "Input",
    "Parsed",
    "Prompt",
    "RecordTemplate",
    "Reply",
    "Template",
    "TemplateError",
    "Unusable",
    "compile_record",
    "compile_template",
    "load_prompt",
    "parse_reply",
    "render_messages",
    "split_thinking",
]
