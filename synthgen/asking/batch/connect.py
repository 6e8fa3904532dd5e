"""From a teacher to its vendor's batch API; the one place that picks an SDK, and imports it only then."""

from synthgen.asking.ask import TeacherSpec
from synthgen.asking.batch.calls import Calls
from synthgen.asking.batch.vendor import Pace, Vendor
from synthgen.asking.providers import BatchTeacherConfig, endpoint_of, wire_of
from synthgen.asking.transport.endpoint import Endpoint

__all__ = ["connect_batches"]


def connect_batches(spec: TeacherSpec, pace: Pace) -> Calls:
    """The batches of a teacher; imports the SDK of its dialect, sends nothing.

    Raises:
        MissingKeyError: its credential's environment variable is not set.
    """
    config = spec.config
    assert isinstance(config, BatchTeacherConfig)  # no other has a mode
    vendor = _vendor(endpoint_of(config), config.patience_s())
    return Calls(vendor, wire_of(config), pace, config.give_up_after_s)


def _vendor(endpoint: Endpoint, timeout_s: float) -> Vendor:
    if endpoint.dialect == "anthropic":
        from synthgen.asking.batch.anthropic_batches import AnthropicBatches

        return AnthropicBatches(endpoint, timeout_s=timeout_s)
    from synthgen.asking.batch.openai_batches import OpenAIBatches

    return OpenAIBatches(endpoint, timeout_s=timeout_s)
