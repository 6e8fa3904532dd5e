"""Support tickets and what a student is to make of them, out of a seed.

    {"category": ..., "urgent": ..., "product": ...}

Held-out tickets are of products, names, greetings and problems in words that no training ticket has, only the phrases about
hurry are the same: who remembers rows gets none of them right. What has to be learnt is the form, four categories by meaning,
two degrees of hurry, and to copy a product.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

__all__ = ["HELD_OUT", "TRAINING", "Share", "tickets", "write_tickets"]


@dataclass(frozen=True, slots=True)
class Share:
    """The words that the tickets of one share are made of."""

    problems: dict[str, list[str]]
    hurry: dict[str, list[str]]
    products: list[str]
    greetings: list[str]
    names: list[str]


TRAINING = Share(
    problems={
        "billing": [
            "I was charged twice for the {product}",
            "the invoice for my {product} is wrong",
            "please refund what I paid for the {product}",
            "my bill shows an unknown fee for the {product}",
            "the price of the {product} was taken from my card although I cancelled",
        ],
        "login": [
            "I cannot sign in to my {product}",
            "my password for the {product} does not work any more",
            "the {product} says my account is locked",
            "the code to log in to the {product} never arrives",
            "how can I reset the password of my {product}",
        ],
        "shipping": [
            "the parcel with my {product} is late",
            "the {product} went to a wrong address",
            "tracking of the {product} has not moved for days",
            "the box with the {product} came damaged by the courier",
            "when will the {product} I ordered be delivered",
        ],
        "bug": [
            "the {product} crashes when it starts",
            "my {product} shows an error and freezes",
            "the export button of the {product} does nothing",
            "since the update the {product} stops every few minutes",
            "the search in the {product} returns nothing at all",
        ],
    },
    hurry={
        "yes": [
            "I need this today.",
            "This is an emergency!",
            "Please act immediately.",
            "We lose money every hour.",
            "It is very urgent.",
        ],
        "no": [
            "Take your time.",
            "There is no hurry.",
            "Whenever you can.",
            "It can wait until next week.",
            "No need to rush.",
        ],
    },
    products=[
        "router",
        "camera",
        "printer",
        "tablet",
        "speaker",
        "scanner",
        "headset",
        "monitor",
        "keyboard",
    ],
    greetings=["Hello,", "Hi team,", "Good morning,", "Dear support,", ""],
    names=["Anna", "Ben", "Carla", "David", "Emma", "Felix", "Greta", "Hugo"],
)
HELD_OUT = Share(
    problems={
        "billing": [
            "I paid twice for one {product}",
            "there is a wrong amount on the invoice of the {product}",
            "I want my money back for the {product}",
        ],
        "login": [
            "I am locked out of the account of my {product}",
            "the {product} does not accept my password",
            "signing in to the {product} fails",
        ],
        "shipping": [
            "my {product} has not been delivered yet",
            "the courier brought the {product} to somebody else",
            "the package with the {product} is still on its way",
        ],
        "bug": [
            "my {product} freezes all the time",
            "the {product} crashes with an error message",
            "a button of the {product} does nothing since the update",
        ],
    },
    hurry=TRAINING.hurry,
    products=["laptop", "phone", "projector", "watch", "drone", "microphone"],
    greetings=["Hey,", "Good evening,", "To whom it may concern,"],
    names=["Ivan", "Julia", "Karim", "Lena"],
)


def tickets(share: Share, count: int, *, seed: int = 0) -> list[dict[str, str]]:
    """Different tickets, `question` and `answer`, as many of each category and degree of hurry as of the others."""
    draw = random.Random(seed)
    found: dict[str, dict[str, str]] = {}
    for category, urgent in _in_turn(share):
        if len(found) == count:
            break
        product = draw.choice(share.products)
        problem = draw.choice(share.problems[category]).format(product=product)
        parts = [draw.choice(share.greetings), f"{problem}.", draw.choice(share.hurry[urgent])]
        if draw.random() < 0.5:
            parts[1:] = reversed(parts[1:])
        text = " ".join(part for part in (*parts, draw.choice(share.names)) if part)
        answer = {"category": category, "urgent": urgent, "product": product}
        found[text] = {"question": text, "answer": orjson.dumps(answer).decode()}
    rows = list(found.values())
    draw.shuffle(rows)
    return rows


def _in_turn(share: Share) -> Iterator[tuple[str, str]]:
    while True:
        for category in share.problems:
            for urgent in share.hurry:
                yield category, urgent


def write_tickets(path: Path, share: Share, count: int, *, seed: int = 0) -> Path:
    """A JSONL file of conversations."""
    lines = []
    for row in tickets(share, count, seed=seed):
        turns = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        lines.append(orjson.dumps({"messages": turns}) + b"\n")
    path.write_bytes(b"".join(lines))
    return path
