"""From resolved teachers to something that answers: through the registry of providers.

In: `TeacherSpec`s. Out: their `Teacher`s, by alias. Nothing is opened or loaded before a teacher is first asked, but
what can never work (a missing key, extra or model file) is an error now, before anything is sent.
"""

from collections.abc import Mapping
from typing import cast

from synthgen.asking.ask import TeacherSpec
from synthgen.asking.outcome import Teacher
from synthgen.errors import MissingKeyError
from synthgen.plugins import load_plugin

__all__ = ["connect", "connect_all"]


def connect_all(specs: Mapping[str, TeacherSpec]) -> dict[str, Teacher]:
    """The teacher of every endpoint of every spec, by the alias of that.

    Raises:
        MissingKeyError: a credential's environment variable is not set.
        UsageError: an extra is not installed, or a local model does not exist.
    """
    return {host.alias: connect(host) for spec in specs.values() for host in spec.hosts}


def connect(spec: TeacherSpec) -> Teacher:
    """The teacher of one spec; raises what `connect_all` does."""
    try:
        return cast(Teacher, load_plugin("provider", spec.config.provider).run(spec.config))
    except MissingKeyError as error:
        raise MissingKeyError(f"teacher {spec.alias!r}: {error}") from error
