"""The cross-entropy method as PETS uses it: refit a bounded Gaussian to the elites, return its mean."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.planners.candidates import Objective, PlanInfo, bounds, elite_shares, evaluate, report
from jaxmbrl.types import Array, Key, Planner


@configurable
class Config:
    """Options of `make`; the defaults are the paper's."""

    population: int = option(500, "candidates an iteration", low=1)
    elites: int = option(50, "candidates that the next Gaussian is fitted to", low=1)
    iterations: int = option(5, "refits", low=1)
    alpha: float = option(0.1, "share of the old mean and variance that is kept", low=0.0, high=1.0)

    def check(self) -> None:
        """Elites are some of the candidates."""
        if self.elites > self.population:
            raise ConfigError(f"elites: got {self.elites}, needs at most population = {self.population}")


class Plan(NamedTuple):
    """The warm start.

    Attributes:
        mean: [*S], where the next search starts.
    """

    mean: Array


def init(*, low: Array, high: Array) -> Plan:
    """Start from the middle of the bounds."""
    return Plan((low + high) / 2)


def sample(key: Key, mean: Array, var: Array, *, low: Array, high: Array, population: int) -> Array:
    """Candidates [N, *S] from a Gaussian, truncated at two standard deviations, that fits within the bounds.

    The standard deviation is at most half the distance from the mean to the nearer bound.
    """
    std = jnp.minimum(jnp.sqrt(var), jnp.minimum(mean - low, high - mean) / 2)
    noise = jax.random.truncated_normal(key, -2.0, 2.0, (population, *mean.shape))
    return jnp.clip(mean + std * noise, low, high)  # the clip only removes rounding errors


def refit(
    mean: Array, var: Array, candidates: Array, shares: Array, *, alpha: float | Array = 0.1
) -> tuple[Array, Array]:
    r"""Move a Gaussian towards the elites.

    :math:`\mu' = \alpha \mu + (1 - \alpha) \sum_i w_i x_i`, and the same for the variance.

    Args:
        mean: [*S].
        var: [*S].
        candidates: x, [N, *S].
        shares: w, [N], summing to 1: positive for elites, 0 for the others.
        alpha: [], share of the old moments that is kept.

    Returns:
        The new mean and variance.
    """
    elite_mean = jnp.tensordot(shares, candidates, axes=1)
    elite_var = jnp.tensordot(shares, (candidates - elite_mean) ** 2, axes=1)
    return alpha * mean + (1 - alpha) * elite_mean, alpha * var + (1 - alpha) * elite_var


def search(
    key: Key,
    objective: Objective,
    plan: Plan,
    *,
    low: Array,
    high: Array,
    population: int = 500,
    elites: int = 50,
    iterations: int = 5,
    alpha: float | Array = 0.1,
) -> tuple[Array, Plan, PlanInfo]:
    """Sample, select and refit ``iterations`` times.

    Only the mean is warm-started; the variance starts from ((high - low) / 4)^2 in each search.

    Args:
        key: consumed; the objective gets a fresh key each iteration.
        objective: ``(key, candidates [N, *S]) -> scores [N]``, higher is better.
        plan: the warm start.
        low: [*S].
        high: [*S].
        population: N.
        elites: K.
        iterations: I.
        alpha: [], share of the old mean and variance that is kept.

    Returns:
        The final mean [*S], the plan that holds it, and the info of each iteration.

    Source: Chua et al. 2018, Alg. 1 and appendix A, arXiv:1805.12114.

    Differs from the paper: the number of iterations is fixed, a collapsed variance does not end the search; candidates
    that tie with the last elite are elites too.
    """

    def iterate(carry: tuple[Array, Array], keys: Key) -> tuple[tuple[Array, Array], PlanInfo]:
        mean, var = carry
        key_candidates, key_objective = keys
        candidates = sample(key_candidates, mean, var, low=low, high=high, population=population)
        scores = evaluate(objective, key_objective, candidates)
        carry = refit(mean, var, candidates, elite_shares(scores, elites), alpha=alpha)
        return carry, report(candidates, scores, low, high)

    start = (plan.mean, ((high - low) / 4) ** 2)
    (mean, _), info = jax.lax.scan(iterate, start, jax.random.split(key, (iterations, 2)))
    mean = jnp.clip(mean, low, high)  # an average may leave the bounds by a rounding error
    return mean, Plan(mean), info


def make(shape: tuple[int, ...], low: Any, high: Any, config: Config) -> Planner:
    """A CEM `Planner` of arrays of ``shape`` within bounds that broadcast to it."""
    low, high = bounds(shape, low, high)
    return Planner(
        init=functools.partial(init, low=low, high=high),
        plan=functools.partial(
            search,
            low=low,
            high=high,
            population=config.population,
            elites=config.elites,
            iterations=config.iterations,
            alpha=jnp.asarray(config.alpha, jnp.float32),
        ),
    )
