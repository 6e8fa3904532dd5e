"""The companion trainer: a dataset in, a student out.

    conversations ── read ──► rows ── mask ──► Example ── pack ──► batch ── engine (TRL) ──► checkpoints ──► student
       reading.py              masks.py         examples.py  packing.py  engine.py                            story.py

In: a run folder or anybody's chat data, and a student's YAML file. Out: a folder with the student, its card, its
metrics and what it was made from. Nothing of this package is imported by the rest of synthgen at import time, and
torch, transformers and TRL only where they are used: they come with the extra `train`.
Rejected: a training loop of our own, which would have to earn distributed training, resuming and mixed precision again.
"""
