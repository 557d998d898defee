"""Which configurations a sweep tries: the product of what varies, or a random sample of it.

    agent.fit.learning_rate=1e-4,3e-4,1e-3        a list
    agent.planner=cem,mppi                        of anything that the command line can set
    agent.model.member.hidden=(64,64),(200,200)   tuples in parentheses
    agent.fit.learning_rate=log:1e-4..1e-2        a range to sample from, uniform in the logarithm
    agent.discount=0.9..1.0                       or uniform; of whole numbers where both ends are

A configuration is a table from dotted paths to texts, so that what is printed is exactly what was run.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from jaxmbrl.config import ConfigError

Configuration: TypeAlias = Mapping[str, str]

SECTIONS = ("agent", "env", "schedule")
DIGITS = 6  # Significant digits of a sampled number: it is the number that is run.
PATIENCE = 100  # Draws for each configuration that is asked for, before a sample is said to be too large.


class Range(NamedTuple):
    """Where to draw from.

    Attributes:
        low: the lower end.
        high: the upper end, above ``low``; a whole number may be drawn, another almost never.
        log: uniform in the logarithm.
        whole: whole numbers only.
    """

    low: float
    high: float
    log: bool
    whole: bool


class Axis(NamedTuple):
    """What varies.

    Attributes:
        path: such as ``"agent.fit.learning_rate"``.
        values: texts, or where to draw them from.
    """

    path: str
    values: tuple[str, ...] | Range


def configurations(vary: Sequence[str], sample: int = 0, seed: int = 0) -> tuple[Configuration, ...]:
    """All configurations of a sweep, different from one another.

    Args:
        vary: as on the command line; nothing gives the one configuration that changes nothing.
        sample: how many to draw; 0 takes the whole product, which needs lists.
        seed: of the draws.

    Raises:
        ConfigError: one line that names what is wrong.
    """
    axes = [parse(text) for text in vary]
    paths = [axis.path for axis in axes]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"vary: got {path} twice, needs all its values in one list")
    if sample:
        return _sampled(axes, sample, seed)
    lists = [_list(axis) for axis in axes]
    return tuple(dict(zip(paths, texts, strict=True)) for texts in itertools.product(*lists))


def _list(axis: Axis) -> tuple[str, ...]:
    if isinstance(axis.values, Range):
        raise ConfigError(f"vary: got a range for {axis.path}, needs --sample N, or a list of values")
    return axis.values


def parse(text: str) -> Axis:
    """Read what ``--vary`` was given. Raises `ConfigError`."""
    path, equals, values = text.partition("=")
    path = path.strip().removeprefix("--").replace("-", "_")
    section, _, field = path.partition(".")
    if not equals or section not in SECTIONS or not field:
        raise ConfigError(f"vary: got {text!r}, needs agent.FIELD=V1,V2 or schedule.FIELD=... or env.FIELD=...")
    if ".." in values:
        return Axis(path, _range(path, values))
    found = tuple(_split(values))
    for value in found:
        if not value:
            raise ConfigError(f"vary: got {text!r}, needs a value before and after each comma")
        if found.count(value) > 1:
            raise ConfigError(f"vary: got {path}={value} twice, needs different values")
    return Axis(path, found)


def _split(text: str) -> list[str]:
    """Split at the commas that are in no parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _range(path: str, text: str) -> Range:
    log, ends = text.startswith("log:"), text.removeprefix("log:").split("..")
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        raise ConfigError(f"vary: got {path}={text}, needs LOW..HIGH or log:LOW..HIGH") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"vary: got {path}={text}, needs a range from a number to a larger one")
    if log and low <= 0:
        raise ConfigError(f"vary: got {path}={text}, needs a range above 0 for its logarithm")
    return Range(low, high, log, whole=all(end.strip().lstrip("+-").isdigit() for end in ends))


def _sampled(axes: Sequence[Axis], sample: int, seed: int) -> tuple[Configuration, ...]:
    """``sample`` different configurations, drawn independently."""
    generator = np.random.default_rng(seed)
    found: dict[tuple[str, ...], None] = {}
    for _ in range(PATIENCE * sample):
        found.setdefault(tuple(_draw(axis.values, generator) for axis in axes))
        if len(found) == sample:
            return tuple(dict(zip([axis.path for axis in axes], texts, strict=True)) for texts in found)
    raise ConfigError(f"sample: got {sample}, needs at most {len(found)}, as many configurations as there are")


def _draw(values: tuple[str, ...] | Range, generator: np.random.Generator) -> str:
    if not isinstance(values, Range):
        return values[generator.integers(len(values))]
    low, high = values.low, values.high + values.whole  # a whole number is rounded down, and may be the upper end
    if values.log:
        number = math.exp(generator.uniform(math.log(low), math.log(high)))
    else:
        number = float(generator.uniform(low, high))
    return str(min(math.floor(number), int(values.high))) if values.whole else f"{number:.{DIGITS}g}"
