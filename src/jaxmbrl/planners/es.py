r"""A simple evolution strategy: Adam on the gradient of a smoothed objective, from mirrored samples.

:math:`\nabla_m E_{\epsilon} F(m + \sigma \epsilon) \approx \frac{1}{N \sigma} \sum_k u_k \epsilon_k`, where the
perturbations come in pairs :math:`\pm \epsilon`, and :math:`u_k` is the centred rank of a score within [-1/2, 1/2]. The
standard deviation stays, and a step costs nothing but the scores: it scales to many thousands of parameters.

Source: Salimans et al. 2017, arXiv:1703.03864, Alg. 1 and section 2.1 (mirrored sampling, rank shaping).

Differs from the paper: no virtual batch normalisation and no weight decay; tied scores share their mean rank, so that
where nothing tells candidates apart the mean stays where it is.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.planners.candidates import Objective, PlanInfo, bounds, evaluate, report
from jaxmbrl.types import Array, Key, Planner


@configurable
class Config:
    """Options of `make`."""

    population: int = option(64, "candidates a generation, in mirrored pairs", low=2)
    iterations: int = option(100, "generations", low=1)
    std: float = option(0.02, "of the perturbations (sigma), as a share of half the range", above=0.0)
    learning_rate: float = option(0.01, "Adam's step size, as a share of half the range", above=0.0)

    def check(self) -> None:
        """Perturbations come in pairs."""
        if self.population % 2:
            raise ConfigError(f"population: got {self.population}, needs an even number")


class Plan(NamedTuple):
    """The warm start.

    Attributes:
        mean: [*S], where the next search starts; Adam starts afresh.
    """

    mean: Array


def centred_ranks(scores: Array) -> Array:
    """Ranks of scores [N] as shares within [-1/2, 1/2], which sum to 0; equal scores get their mean rank."""
    below = jnp.sum(scores[None, :] < scores[:, None], axis=1)
    above = jnp.sum(scores[None, :] > scores[:, None], axis=1)
    return (below - above) / (2.0 * (scores.size - 1))


def search(
    key: Key,
    objective: Objective,
    plan: Plan,
    *,
    low: Array,
    high: Array,
    population: int = 64,
    iterations: int = 100,
    std: float | Array = 0.02,
    learning_rate: float | Array = 0.01,
) -> tuple[Array, Plan, PlanInfo]:
    """Climb for ``iterations`` generations.

    Args:
        key: consumed; the objective gets a fresh key each generation.
        objective: ``(key, candidates [N, *S]) -> scores [N]``, higher is better.
        plan: the warm start.
        low: [*S].
        high: [*S].
        population: N, even.
        iterations: I.
        std: [], sigma, as a share of half the range.
        learning_rate: [], as a share of half the range.

    Returns:
        The final mean [*S], the plan that holds it, and the info of each generation.
    """
    half = (high - low) / 2
    adam = optax.adam(learning_rate)  # type: ignore[arg-type]

    def generation(carry: tuple[Array, Any], key: Key) -> tuple[tuple[Array, Any], PlanInfo]:
        mean, optimiser = carry
        key_noise, key_objective = jax.random.split(key)
        noise = jax.random.normal(key_noise, (population // 2, *low.shape))
        noise = jnp.concatenate([noise, -noise])
        candidates = jnp.clip(mean + half * std * noise, low, high)
        scores = jax.lax.stop_gradient(evaluate(objective, key_objective, candidates))  # only ranks count
        gradient = jnp.tensordot(centred_ranks(scores), noise, axes=1) / (population * std)
        steps: Any
        steps, optimiser = adam.update(-gradient, optimiser)  # Adam minimises
        return (jnp.clip(mean + half * steps, low, high), optimiser), report(candidates, scores, low, high)

    start = jax.lax.stop_gradient(plan.mean)
    (mean, _), info = jax.lax.scan(generation, (start, adam.init(start)), jax.random.split(key, iterations))
    return mean, Plan(mean), info


def make(shape: tuple[int, ...], low: Any, high: Any, config: Config) -> Planner:
    """An evolution-strategy `Planner` of arrays of ``shape`` within bounds that broadcast to it."""
    low, high = bounds(shape, low, high)
    return Planner(
        init=lambda: Plan((low + high) / 2),
        plan=functools.partial(
            search,
            low=low,
            high=high,
            population=config.population,
            iterations=config.iterations,
            std=jnp.asarray(config.std, jnp.float32),
            learning_rate=jnp.asarray(config.learning_rate, jnp.float32),
        ),
    )
