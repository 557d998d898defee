"""A preset: one system's configuration together with its schedule."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxmbrl.config import ConfigError, near
from jaxmbrl.schedule import Schedule
from jaxmbrl.types import Spec


class Preset(NamedTuple):
    """What `make` and `training.make_loop` need to run a system.

    Attributes:
        agent: the system's own ``Config``.
        schedule: when its parts learn.
    """

    agent: Any
    schedule: Schedule


def choose(name: str, spec: Spec, table: Mapping[str, Callable[[Spec], Preset]]) -> Preset:
    """The preset called ``name`` for an environment. Raises ConfigError if there is none."""
    if name not in table:
        raise ConfigError(f"preset: got {name!r}, needs one of {', '.join(table)}{near(name, table)}")
    return table[name](spec)
