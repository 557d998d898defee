"""Simulators, each as an `Environment` record: ``make(name, **options)``.

Environments of one's own need no registration: every learner takes the record. `wrappers.strongly_typed` and
`wrappers.time_limit` make it fit to be carried through a compiled loop and end its episodes.
"""

import math
from typing import Any

from jaxmbrl.config import ConfigError, near
from jaxmbrl.envs import brax, car_racing, classic, gymnax, pixels, playground, wrappers
from jaxmbrl.types import Environment

__all__ = ["from_brax", "make", "names", "options", "pixels", "wrappers"]

_SOURCES = {"brax": brax, "gymnax": gymnax, "playground": playground}
_CHECKED_THERE = (brax, gymnax)  # which take more than `options` lists
_NEEDS = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a string"}


def names() -> tuple[str, ...]:
    """The names that `make` knows; gymnax's and Playground's where they are installed."""
    return (*classic.NAMES, *car_racing.NAMES, *brax.NAMES, *gymnax.NAMES, *playground.NAMES, *pixels.NAMES)


def options(name: str) -> dict[str, Any]:
    """What `make` takes for an environment, with the defaults; an option has the type of its default.

    ``episode_length``, ``action_repeat`` and ``frame_stack`` are whole numbers that every environment has, ``size``
    is that of a picture, the others are its own. From Python, Brax's environments take more than is listed here,
    whatever their classes do, and gymnax's take the fields of their ``EnvParams``.

    >>> options("mountain_car")["episode_length"]
    999

    Raises:
        ConfigError: no such environment.
    """
    _check_name(name)
    inner = name.removeprefix(pixels.PREFIX)
    source = _source(inner)
    shared = {"episode_length": source.episode_length(inner), "action_repeat": 1, "frame_stack": 1}
    return {**source.options(inner), **shared, **({"size": pixels.SIZE} if inner != name else {})}


def make(name: str, **options: Any) -> Environment:
    """Make an environment by name.

    Args:
        name: one of `names`.
        **options: some of `options`. ``episode_length`` counts the simulator's steps, of which ``action_repeat`` make
            one step of the environment, and an observation holds the last ``frame_stack``. Physical parameters may be
            tracers, so that they vary under ``jax.vmap``.

    Raises:
        ConfigError: no such environment or option, or a value that does not fit; one line that says what would.
    """
    _check_name(name)
    _check_options(name, options)
    own, inner = dict(options), name.removeprefix(pixels.PREFIX)
    repeats, length = own.pop("action_repeat", 1), own.pop("episode_length", None)
    frames, size = own.pop("frame_stack", 1), pixels.SIZE if inner == name else own.pop("size", pixels.SIZE)
    bare = _source(inner).make(inner, **own)
    length = bare.spec.episode_length if length is None else length
    env = wrappers.action_repeat(bare, repeats)
    env = env if inner == name else pixels.render(env, pixels.scene(inner, **own), size)
    return wrappers.time_limit(wrappers.frame_stack(env, frames), -(-length // repeats))


def from_brax(env: Any, **options: Any) -> Environment:
    """A user's own Brax ``Env`` as an `Environment` with a time limit; options are those of `brax.from_brax`.

    Raises:
        ConfigError: ``env`` is wrapped for Brax's own training, or ``episode_length`` is not positive.
    """
    adapted = brax.from_brax(env, **options)
    return wrappers.time_limit(adapted, adapted.spec.episode_length)


def _source(name: str) -> Any:
    """The module that makes an environment whose name does not begin with ``pixels/``."""
    prefix, slash, _ = name.partition("/")
    return _SOURCES.get(prefix, classic) if slash else car_racing if name in car_racing.NAMES else classic


def _check_name(name: str) -> None:
    if name in names():
        return
    inner = name.removeprefix(pixels.PREFIX)
    if _source(inner) is not classic and inner not in names():
        _source(inner).make(inner)  # raises, and knows why
    if inner != name and inner in names():
        pixels.scene(inner)  # likewise
    hint = near(name, names()) or f"; one of {', '.join(names())}"
    raise ConfigError(f"env: got {name!r}, needs the name of an environment{hint}")


def _check_options(name: str, given: dict[str, Any]) -> None:
    known = options(name)
    for option, value in given.items():
        if option not in known and _source(name.removeprefix(pixels.PREFIX)) not in _CHECKED_THERE:
            raise ConfigError(
                f"env.{option}: no such option of {name}{near(option, known)}; options: {', '.join(known)}"
            )
        if option in known and not _fits(type(known[option]), value):
            raise ConfigError(f"env.{option}: got {value!r}, needs {_NEEDS[type(known[option])]}")
    for option in ("episode_length", "action_repeat", "frame_stack", "size"):
        wrappers.check_count(f"env.{option}", given.get(option, 1))


def _fits(kind: type, value: Any) -> bool:
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return math.isfinite(value) if number else hasattr(value, "dtype")  # an array or a tracer, for a sweep
    return type(value) is kind
