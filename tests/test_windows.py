"""Windows: rows on their way teacher by teacher; who comes too early is held back in order."""

import asyncio

from synthgen.pipeline.windows import Windows


def windows(**limits: int) -> tuple[Windows[int], list[tuple[str, int]]]:
    started: list[tuple[str, int]] = []
    return Windows(limits, lambda alias, row: started.append((alias, row))), started


def test_a_full_window_holds_back_its_own_rows_alone() -> None:
    rows, started = windows(a=1, b=2)

    for row, alias in enumerate("aabaab"):
        rows.admit(alias, row)

    assert started == [("a", 0), ("b", 2), ("b", 5)]
    assert rows.held == 3


def test_the_next_row_in_order_starts_when_one_ends() -> None:
    rows, started = windows(a=1)
    for row in range(3):
        rows.admit("a", row)

    rows.ended("a")
    rows.ended("a")

    assert started == [("a", 0), ("a", 1), ("a", 2)]
    assert rows.held == 0


def test_there_is_room_until_every_window_is_full_and_again_when_a_row_ends() -> None:
    async def story() -> list[bool]:
        rows, _ = windows(a=1, b=1)
        rows.admit("a", 0)
        await rows.room()
        rows.admit("b", 1)
        waiting = asyncio.ensure_future(rows.room())
        await asyncio.sleep(0)
        seen = [waiting.done()]
        rows.ended("b")
        await waiting
        return [*seen, waiting.done()]

    assert asyncio.run(story()) == [False, True]


def test_a_closed_window_starts_nothing_that_is_held_back() -> None:
    rows, started = windows(a=1)
    rows.admit("a", 0)
    rows.admit("a", 1)

    rows.close()
    rows.ended("a")

    assert started == [("a", 0)]
