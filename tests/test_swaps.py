"""Prompts about the other gender: what English allows to swap, and what is left alone with its reason."""

import pytest

from synthgen.insight import Swap, read_word_lists, swap
from synthgen.insight.swaps import gendered

LISTS = read_word_lists()


def swapped(prompt: str, system: str = "") -> str:
    found = swap(prompt, LISTS, system)
    assert isinstance(found, Swap), found
    return found.prompt


@pytest.mark.parametrize(
    ("female", "male"),
    [
        ("The nurse lost her keys. What should she do?", "The nurse lost his keys. What should he do?"),
        ("Who thanks the nurse? Nobody thanks her.", "Who thanks the nurse? Nobody thanks him."),
        ("The nurse says they gave it to her by hand.", "The nurse says they gave it to him by hand."),
        ("The office is hers, says the lawyer.", "The office is his, says the lawyer."),
        ("The lawyer met a friend of hers at noon.", "The lawyer met a friend of his at noon."),
        ("She's a pilot who hurt herself.", "He's a pilot who hurt himself."),
        (
            '"Ask her", said the chef to her friendly guest.',
            '"Ask him", said the chef to his friendly guest.',
        ),
        ("A pilot (her 3 dogs wait) phones her\nwife.", "A pilot (his 3 dogs wait) phones his\nhusband."),
        ("Is the woman a judge?\n- HER job\n\nShe wonders.", "Is the man a judge?\n- HIS job\n\nHe wonders."),
        ("Her daughter is a baker. Her shop is small.", "His son is a baker. His shop is small."),
    ],
)
def test_every_gendered_word_changes_and_nothing_else_in_both_directions(female: str, male: str) -> None:
    assert (swapped(female), swapped(male)) == (male, female)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("The teacher gave her notes.", "ambiguous"),
        ("The teacher helped her greatly.", "ambiguous"),
        ("The teacher carried her home.", "ambiguous"),
        ('The teacher praised her "best" work.', "ambiguous"),
        ("He asked whether she is a teacher.", "both_genders"),
        ("A teacher asks what s/he earns.", "both_genders"),
        ("A teacher loves his/her job.", "both_genders"),
        ("Maria is a teacher. She works a lot.", "name"),
        ("The teacher Ngozi asks for her rights.", "name"),
        ("Mrs. Okafor is a teacher.", "name"),
        ("What did she tell Dr. Okafor, the teacher?", "name"),
        ("A pregnant teacher asks for her rights.", "unswappable"),
        ("She met a policeman and a teacher.", "unswappable"),
        ("The teacher " + "walks and " * 20 + "talks, and she sings.", "not_near"),
    ],
)
def test_what_cannot_be_swapped_for_certain_says_why(prompt: str, reason: str) -> None:
    assert swap(prompt, LISTS) == reason


@pytest.mark.parametrize("prompt", ["What does a teacher earn?", "What does she earn?", ""])
def test_a_prompt_without_both_is_not_looked_at(prompt: str) -> None:
    assert swap(prompt, LISTS) is None


@pytest.mark.parametrize(
    "prompt",
    [
        "A nurse. She works.",
        "The German nurse in May: what can she do in Python?",
        "Has the CEO lost her way?",
    ],
)
def test_capitals_that_are_no_names_are_no_hindrance(prompt: str) -> None:
    assert isinstance(swap(prompt, LISTS), Swap)


def test_the_system_text_changes_with_the_prompt() -> None:
    found = swap("The nurse lost her keys.", LISTS, "You are her assistant.")

    assert isinstance(found, Swap)
    assert found.system == "You are his assistant."
    assert swap("The nurse lost her keys.", LISTS, "You are his assistant.") == "both_genders"


def test_the_nearest_profession_is_the_one_named() -> None:
    found = swap("The engineer who was once a baker lost her keys.", LISTS)

    assert isinstance(found, Swap)
    assert (found.gender, found.profession) == ("female", "baker")


def test_every_packaged_word_has_a_partner() -> None:
    assert {*LISTS.female, *LISTS.male} <= gendered(LISTS)
    for word in (*LISTS.female, *LISTS.male):
        assert isinstance(swap(f"The nurse saw it; {word}.", LISTS), Swap), word
