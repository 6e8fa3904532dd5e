"""Backward passes without autograd's engine, for devices that are not there.

The engine of a CPU build asks its accelerator for a stream before it gives a CUDA gradient to anybody
(`InputBuffer::add`, `getCurrentStream`: "Cannot access accelerator device when none is available"). What computes gradients are
the functions of the graph, which can be called from here one by one: the same ones, in an order the engine could have
chosen, with what it does between them (checks of the device, casts to the type, sums over broadcast dimensions).
What is left out is what the engine adds: threads, streams and hooks.
"""

from typing import Any

from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.checkpoint import GraphExecGroup

__all__ = ["walk_backward"]


def walk_backward(loss: Tensor) -> int:
    """Add the gradients of a scalar to its leaves, as `loss.backward()` does; the number of functions called.

    Raises:
        RuntimeError: a gradient is on another device than what it is the gradient of, as the engine has it.
    """
    root = loss.grad_fn
    assert root is not None
    gradients: dict[Node, list[Tensor | None]] = {root: [loss.new_ones(())]}
    order = _before(root)
    with GraphExecGroup():  # what checkpointing computes again, it computes once
        for node in order:
            given = gradients.pop(node)
            expected = node._input_metadata
            called = node if callable(node) else node.apply  # of a `torch.autograd.Function`
            found = called(*(_fitted(node, one, about) for one, about in zip(given, expected, strict=True)))
            for (below, at), gradient in zip(
                node.next_functions, found if isinstance(found, tuple) else (found,), strict=True
            ):
                if below is not None:
                    slots = gradients.setdefault(below, [None] * len(below._input_metadata))
                    before = slots[at]
                    slots[at] = gradient if before is None or gradient is None else before + gradient
    return len(order)


def _before(root: Node) -> list[Node]:
    """All functions of the graph, each before those it hands gradients to."""
    finished: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            finished.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(below, False) for below, _ in node.next_functions if below is not None]
    return finished[::-1]


def _fitted(node: Node, gradient: Tensor | None, about: Any) -> Tensor | None:
    """The gradient as the engine hands it to a function; `about` has device, type and shape of what it is the gradient of."""
    if gradient is None:
        return None
    if gradient.device != about.device:
        raise RuntimeError(f"{node.name()}: a gradient on {gradient.device} of a tensor on {about.device}")
    if list(gradient.shape) != list(about.shape):
        gradient = gradient.sum_to_size(about.shape)
    return gradient.to(about.dtype)
