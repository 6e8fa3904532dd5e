"""The trainer's own proofs, on the machine at hand: `synthgen train doctor`.

    numerics.py  what the losses must satisfy          model.py  what a small model must  ─┐
    facts.py     device and versions                   training.py  what the engine must  ─┴─ story.py ──► report

In: a device. Out: for every check what was measured, what is allowed, and what that says. Guarantees: nothing is
downloaded; a check that cannot run here is skipped with its reason, never passed; one that breaks fails with what it said,
and the others go on. The measures are those of the test suite, which plants faults and sees them found.
"""
