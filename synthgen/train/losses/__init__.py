"""Losses beyond cross-entropy on the labels: pure functions, and the objectives the engine calls."""
