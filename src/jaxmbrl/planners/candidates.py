"""What every planner does with its candidates: keep them in bounds, score them, select elites, report."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmbrl.config import ConfigError
from jaxmbrl.types import Array, Key

Objective: TypeAlias = Callable[[Key, Array], Array]  # (key, candidates [N, *S]) -> scores [N], higher is better

WORST = float(np.finfo(np.float32).min)  # finite, so that differences of scores never give inf - inf


class PlanInfo(NamedTuple):
    """How a search went; every field has one entry an iteration.

    Attributes:
        score: [I], the best candidate's score.
        mean_score: [I], mean over the candidates whose score is finite.
        finite: [I], share of the candidates whose score is finite.
        spread: [I], standard deviation of the candidates as a share of the range, averaged over entries.
    """

    score: Array
    mean_score: Array
    finite: Array
    spread: Array


def bounds(shape: tuple[int, ...], low: Any, high: Any) -> tuple[Array, Array]:
    """Broadcast bounds to a solution's shape S.

    Args:
        shape: S, most often (H, A).
        low: broadcastable to S, for actions [A]. Traced bounds are allowed, and not validated.
        high: like ``low``, and above it everywhere.

    Returns:
        low and high, both [*S], float32.

    Raises:
        ConfigError: an empty shape, bounds that do not broadcast, are not finite, or are in the wrong order.
    """
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ConfigError(f"shape: got {shape!r}, needs whole numbers, each at least 1")
    if not any(isinstance(value, Tracer) for value in (low, high)):
        for name, value in (("low", low), ("high", high)):
            if not np.all(np.isfinite(value)):
                raise ConfigError(f"{name}: got {value}, needs finite bounds")
        if not np.all(np.asarray(low) < np.asarray(high)):
            raise ConfigError(f"high: got {high}, needs to be above low = {low}")
    try:
        return tuple(jnp.broadcast_to(jnp.asarray(value, jnp.float32), shape) for value in (low, high))  # type: ignore
    except ValueError:
        raise ConfigError(f"low, high: got shapes {np.shape(low)}, {np.shape(high)}, needs {shape} or fewer") from None


def evaluate(objective: Objective, key: Key, candidates: Array) -> Array:
    """Scores [N] of candidates [N, *S], float32; a score that is not finite becomes `WORST`."""
    scores = jnp.asarray(objective(key, candidates), jnp.float32)
    chex.assert_shape(scores, candidates.shape[:1])
    return jnp.where(jnp.isfinite(scores), scores, WORST)


def select(candidates: Array, scores: Array, num: int) -> Array:
    """The ``num`` candidates [num, *S] with the highest scores [N], best first."""
    chex.assert_equal_shape_prefix([candidates, scores], 1)
    _, index = jax.lax.top_k(scores, num)
    return candidates[index]


def elite_shares(scores: Array, num: int) -> Array:
    """Equal shares [N], summing to 1, for the ``num`` best scores [N] and those that tie with the last of them.

    Where nothing tells candidates apart (a task that only asks to stay alive), none is preferred by its place in the
    list: an average over all of them stays where it was. Scores that are not finite have no share unless all are.
    """
    threshold = jax.lax.top_k(scores, num)[0][-1]
    elite = (scores >= threshold) & (scores > WORST)
    elite = jnp.where(jnp.any(elite), elite, True)
    return elite / jnp.sum(elite, dtype=jnp.float32)


def report(candidates: Array, scores: Array, low: Array, high: Array) -> PlanInfo:
    """What one iteration contributes to `PlanInfo`: the same fields without the axis I."""
    finite = scores > WORST
    mean = jnp.sum(jnp.where(finite, scores, 0.0)) / jnp.maximum(jnp.sum(finite), 1)
    return PlanInfo(
        score=jnp.max(scores),
        mean_score=jnp.where(jnp.any(finite), mean, WORST),
        finite=jnp.mean(finite, dtype=jnp.float32),
        spread=jnp.mean(jnp.std(candidates, axis=0) / (high - low)),
    )


def supported(action: Array, info: PlanInfo) -> Array:
    """``action``, or nan where no candidate ever had a finite score.

    A model that imagines nothing finite supports no action at all. The one that a search then falls back on looks like
    any other; nan does not, and stops a run.
    """
    return jnp.where(jnp.any(info.finite > 0), action, jnp.nan)
