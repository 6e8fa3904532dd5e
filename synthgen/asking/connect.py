"""From a resolved teacher to something that answers: through the registry of providers.

In: a `TeacherSpec`. Out: a `Teacher`. `require_keys` fails before anything is sent when a credential is missing.
"""

from collections.abc import Iterable
from typing import cast

from synthgen.asking.ask import TeacherSpec
from synthgen.asking.outcome import Teacher
from synthgen.asking.providers import RemoteTeacherConfig, check_key
from synthgen.plugins import load_plugin

__all__ = ["connect", "require_keys"]


def connect(spec: TeacherSpec) -> Teacher:
    """The teacher of a spec; opens nothing before its first request."""
    return cast(Teacher, load_plugin("provider", spec.config.provider).run(spec.config))


def require_keys(specs: Iterable[TeacherSpec]) -> None:
    """Check every remote teacher's credential.

    Raises:
        MissingKeyError: an environment variable is not set; the message names it.
    """
    for spec in specs:
        if isinstance(spec.config, RemoteTeacherConfig):
            check_key(spec.config)
