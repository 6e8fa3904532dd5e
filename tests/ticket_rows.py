"""A task a small student can learn: support tickets in English -> JSON of category and priority, made from a seed.

Every text is made once, so rows that are held out were not seen; their parts were, in other company.
"""

import random
from pathlib import Path

import orjson

__all__ = ["short_tickets", "tickets", "write_tickets"]

_PROBLEMS = {
    "billing": (
        "I was charged twice for {thing}",
        "the invoice for {thing} shows the wrong amount",
        "I still wait for the refund of {thing}",
        "my card was declined when I paid for {thing}",
        "there is a fee on my bill for {thing} that nobody explained",
        "the discount on {thing} is missing from my receipt",
    ),
    "login": (
        "I cannot sign in to {place}",
        "{place} does not accept my password",
        "the reset link for {place} never arrives",
        "my account on {place} is locked",
        "the code for signing in to {place} is always wrong",
        "{place} logs me out every minute",
    ),
    "shipping": (
        "the parcel with {thing} is late",
        "{thing} arrived with a broken box",
        "tracking for {thing} has not moved for days",
        "you delivered {thing} to the wrong address",
        "half of the package with {thing} is missing",
        "the courier never came with {thing}",
    ),
    "bug": (
        "{place} crashes when I open a file",
        "the search on {place} finds nothing",
        "the export button on {place} does nothing",
        "{place} shows an error after the update",
        "the screen of {place} freezes all the time",
        "{place} mixes up the letters in every report",
    ),
}
_THINGS = (
    "my desk lamp",
    "the blue kettle",
    "two chairs",
    "the yearly plan",
    "my new phone",
    "the printer",
    "a gift card",
)
_PLACES = (
    "the website",
    "the phone app",
    "the customer portal",
    "the desktop program",
    "the team page",
    "the web shop",
)
_OPENINGS = ("Hello,", "Hi team,", "Good morning,", "Dear support,", "Hey,")
_ENDINGS = {
    "urgent": (
        "This is an emergency.",
        "I need this solved right now!",
        "Please act immediately.",
        "It is urgent, we are losing money.",
        "Nobody here can work until it is solved!",
    ),
    "normal": (
        "No hurry.",
        "Whenever you have time.",
        "It can wait until next week.",
        "Thanks for looking into it some day.",
        "This is not pressing at all.",
    ),
}


def tickets(count: int, *, seed: int) -> list[tuple[str, str]]:
    """`count` different texts, each with its answer."""
    draw = random.Random(seed)
    made: dict[str, str] = {}
    while len(made) < count:
        category, priority = draw.choice(list(_PROBLEMS)), draw.choice(list(_ENDINGS))
        problem = draw.choice(_PROBLEMS[category]).format(
            thing=draw.choice(_THINGS), place=draw.choice(_PLACES)
        )
        text = f"{draw.choice(_OPENINGS)} {problem}. {draw.choice(_ENDINGS[priority])}"
        made[text] = f'{{"category": "{category}", "priority": "{priority}"}}'
    return list(made.items())


def short_tickets(*, seed: int) -> list[tuple[str, str]]:
    """All combinations of five openings, six words and five closings, shuffled: one word of each decides the topic."""
    rows = [
        (f"{opening} {word} {closing}", f'{{"topic": "{topic}"}}')
        for topic, words in (("money", ("bill", "fee", "refund")), ("post", ("box", "parcel", "van")))
        for opening in ("the", "my", "a", "this", "our")
        for word in words
        for closing in ("now", "today", "later", "soon", "again")
    ]
    random.Random(seed).shuffle(rows)
    return rows


def write_tickets(path: Path, rows: list[tuple[str, str]]) -> Path:
    """The rows as JSONL of conversations."""
    conversations = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
        for text, answer in rows
    ]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in conversations))
    return path
