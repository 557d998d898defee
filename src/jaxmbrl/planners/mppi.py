"""Model predictive path integral control: the mean of noisy plans, weighted by their exponentiated scores."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.config import configurable, option
from jaxmbrl.planners.candidates import WORST, Objective, PlanInfo, bounds, evaluate, report
from jaxmbrl.planners.noise import autoregressive
from jaxmbrl.types import Array, Key, Planner


@configurable
class Config:
    """Options of `make`."""

    population: int = option(500, "candidates an iteration", low=1)
    iterations: int = option(5, "reweightings", low=1)
    temperature: float = option(0.1, "score difference that changes a weight by a factor e", above=0.0)
    normalise: bool = option(True, "measure score differences in units of (best - median), which no reward scale moves")
    std: float = option(
        0.25, "standard deviation of the noise in the first iteration, as a share of the range", above=0.0
    )
    decay: float = option(0.7, "factor on the standard deviation from one iteration to the next", above=0.0, high=1.0)
    correlation: float = option(0.0, "correlation of the noise between neighbouring time steps", low=0.0, high=1.0)


class Plan(NamedTuple):
    """The warm start.

    Attributes:
        mean: [*S], where the next search starts.
    """

    mean: Array


def init(*, low: Array, high: Array) -> Plan:
    """Start from the middle of the bounds."""
    return Plan((low + high) / 2)


def weigh(scores: Array, temperature: float | Array, *, normalise: bool) -> Array:
    r"""Weights that sum to one, 0 for candidates whose score is not finite (unless none is).

    :math:`w_i \propto \exp((s_i - \max s) / (\lambda \, c))`, where c is 1, or with ``normalise`` the gap between
    the best and the median finite score. The median, unlike the standard deviation, is blind to a few disasters.

    Args:
        scores: [N], as `evaluate` returns them.
        temperature: [], lambda, above 0.
        normalise: whether to measure scores in units of that gap.

    Returns:
        [N].
    """
    finite = scores > WORST
    ordered = -jnp.sort(-scores)  # the finite ones come first
    best, median = ordered[0], ordered[jnp.maximum(jnp.sum(finite) - 1, 0) // 2]
    tiny = jnp.finfo(scores.dtype).tiny
    scale = temperature * jnp.maximum(best - median, tiny) if normalise else temperature
    logits = jnp.where(finite, (scores - best) / jnp.maximum(scale, tiny), WORST)
    return jax.nn.softmax(logits)


def search(
    key: Key,
    objective: Objective,
    plan: Plan,
    *,
    low: Array,
    high: Array,
    population: int = 500,
    iterations: int = 5,
    temperature: float | Array = 0.1,
    normalise: bool = True,
    std: float | Array = 0.25,
    decay: float | Array = 0.7,
    correlation: float | Array = 0.0,
) -> tuple[Array, Plan, PlanInfo]:
    """Perturb the mean, weigh the perturbed plans, average them; ``iterations`` times with shrinking noise.

    Args:
        key: consumed; the objective gets a fresh key each iteration.
        objective: ``(key, candidates [N, *S]) -> scores [N]``, higher is better.
        plan: the warm start.
        low: [*S].
        high: [*S].
        population: N.
        iterations: I.
        temperature: [], see `weigh`.
        normalise: see `weigh`.
        std: [], of the noise, as a share of the range.
        decay: [], factor on ``std`` from one iteration to the next.
        correlation: [], of the noise between neighbours along the first axis.

    Returns:
        The weighted mean [*S], the plan that holds it, and the info of each iteration.

    Source: Williams et al. 2017, "Information theoretic MPC", Alg. 2 with alpha = 1, so that there is no control cost
    beside the objective's; Williams et al. 2018, arXiv:1707.02342. Correlated noise: Nagabandi et al. 2019,
    arXiv:1909.11652.

    Differs from the paper: several iterations with shrinking noise instead of one (``iterations=1`` is the paper's),
    scores are normalised by default, and noise is clipped to the bounds before it is weighed.
    """

    def iterate(mean: Array, inputs: tuple[Key, Array]) -> tuple[Array, PlanInfo]:
        (key_noise, key_objective), std = inputs
        noise = autoregressive(key_noise, population, low.shape, correlation)
        candidates = jnp.clip(mean + std * (high - low) * noise, low, high)
        scores = evaluate(objective, key_objective, candidates)
        weights = weigh(scores, temperature, normalise=normalise)
        mean = jnp.clip(jnp.tensordot(weights, candidates, axes=1), low, high)
        return mean, report(candidates, scores, low, high)

    stds = std * decay ** jnp.arange(iterations, dtype=jnp.float32)
    mean, info = jax.lax.scan(iterate, plan.mean, (jax.random.split(key, (iterations, 2)), stds))
    return mean, Plan(mean), info


def make(shape: tuple[int, ...], low: Any, high: Any, config: Config) -> Planner:
    """An MPPI `Planner` of arrays of ``shape`` (the first axis is time) within bounds that broadcast to it."""
    low, high = bounds(shape, low, high)
    return Planner(
        init=functools.partial(init, low=low, high=high),
        plan=functools.partial(
            search,
            low=low,
            high=high,
            population=config.population,
            iterations=config.iterations,
            temperature=jnp.asarray(config.temperature, jnp.float32),
            normalise=config.normalise,
            std=jnp.asarray(config.std, jnp.float32),
            decay=jnp.asarray(config.decay, jnp.float32),
            correlation=jnp.asarray(config.correlation, jnp.float32),
        ),
    )
