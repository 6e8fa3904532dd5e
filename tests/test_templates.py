"""Templates: rendering, errors, the sandbox, records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.errors import RecipeError
from synthgen.recipe.model import RecordConfig
from synthgen.templates import TemplateError, compile_record, compile_template
from synthgen.types import JSONValue, Message


def render(source: str, **fields: JSONValue) -> str:
    return compile_template(source, where="recipe.yaml:1: key").render(fields)


@given(st.text())
def test_a_fields_text_is_never_rendered_again(text: str) -> None:
    assert render("{{ a }}", a=text) == text


@pytest.mark.parametrize("text", ["{{ b }}", "{% raw %}", "{# x #}", "{{ 7 * 7 }}"])
def test_template_syntax_in_a_field_stays_text(text: str) -> None:
    assert render("<{{ a }}>", a=text) == f"<{text}>"


def test_html_is_not_escaped() -> None:
    assert render("{{ a }} {{ a | tojson }}", a='<b> & "c"') == '<b> & "c" "<b> & \\"c\\""'


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (True, "true"), (3, "3"), (1.5, "1.5"), (["é", None], '["é",null]'), ({"a": 1}, '{"a":1}')],
)
def test_values_other_than_text_render_as_json_and_null_as_nothing(value: JSONValue, shown: str) -> None:
    assert render("{{ a }}", a=value) == shown


def test_a_mappings_key_wins_over_a_method_of_that_name() -> None:
    assert render("{{ a.items }}", a={"items": "three"}) == "three"


def test_a_block_tag_leaves_no_empty_line() -> None:
    assert render("x\n  {% if a %}\ny\n  {% endif %}\nz\n", a=True) == "x\ny\nz"


def test_a_missing_variable_is_an_error_that_names_it() -> None:
    with pytest.raises(TemplateError, match="'topic' is missing"):
        render("{{ topic }}", other="x")


def test_a_missing_key_of_a_mapping_is_an_error_that_names_it() -> None:
    with pytest.raises(TemplateError, match="'age' is missing"):
        render("{{ persona.age }}", persona={"name": "secret"})


def test_an_optional_variable_may_be_asked_for() -> None:
    assert render("{{ a if a is defined else 'none' }}") == "none"


@pytest.mark.parametrize("source", ["{{ a + 1 }}", "{{ b[a] }}", "{{ a | round }}", "{{ a.nope }}"])
def test_an_error_never_quotes_a_fields_text(source: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(source, a="sesame", b={})

    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ a.append(1) }}",
        "{{ a.__init__.__globals__ }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_the_sandbox_refuses_to_leave_the_values(source: str) -> None:
    with pytest.raises(TemplateError):
        render(source, a=[])


@pytest.mark.parametrize("source", ["{{ a | map('upper') }}", "{{ a.index }}"])
def test_a_value_that_prints_its_address_is_an_error(source: str) -> None:
    with pytest.raises(TemplateError, match="TypeError"):
        render(source, a=["x"])


def test_a_random_choice_is_not_available() -> None:
    with pytest.raises(RecipeError, match="random"):
        render("{{ a | random }}", a=[1, 2])


def test_a_syntax_error_names_place_and_line() -> None:
    with pytest.raises(RecipeError, match=r"^recipe\.yaml:1: key: not a valid template, template line 2"):
        render("fine\n{% if %}")


def test_variables_are_the_fields_a_template_mentions() -> None:
    template = compile_template("{{ a.b }} {% for x in c %}{{ x }}{% endfor %} {{ range(2) }}", where="w")

    assert template.variables == {"a", "c"}


def test_the_default_record_is_instruction_and_response() -> None:
    record = compile_record(RecordConfig(), where="recipe.yaml:1: output.record")

    assert record.build({"instruction": "Q", "response": "A", "other": "x"}) == (
        Message("user", "Q"),
        Message("assistant", "A"),
    )
    assert record.variables == {"instruction", "response"}


@pytest.mark.parametrize(("system", "turns"), [("", 2), ("  \n", 2), ("Be brief.", 3)])
def test_an_empty_system_message_is_left_out(system: str, turns: int) -> None:
    record = compile_record(RecordConfig(system="{{ system }}"), where="w")

    messages = record.build({"system": system, "instruction": "Q", "response": "A"})

    assert len(messages) == turns


def test_reasoning_goes_to_the_assistant_turn() -> None:
    record = compile_record(RecordConfig(), where="w")

    messages = record.build({"instruction": "Q", "response": "A"}, reasoning="because")

    assert [message.reasoning for message in messages] == [None, "because"]


def test_a_record_without_its_field_is_an_error() -> None:
    record = compile_record(RecordConfig(), where="w")

    with pytest.raises(TemplateError, match="'response' is missing"):
        record.build({"instruction": "Q"})


def test_a_broken_record_template_names_its_key() -> None:
    with pytest.raises(RecipeError, match=r"^recipe\.yaml:9: output\.record\.user: "):
        compile_record(RecordConfig(user="{{ a"), where="recipe.yaml:9: output.record")
