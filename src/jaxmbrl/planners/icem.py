"""Sample-efficient CEM for control in real time (iCEM): coloured noise, elites that live on, fewer candidates."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.planners.candidates import Objective, PlanInfo, bounds, evaluate, report, select
from jaxmbrl.planners.noise import power_law
from jaxmbrl.types import Array, Key, Planner


@configurable
class Config:
    """Options of `make`; the defaults are the paper's, with the noise exponent of its mid-range tasks.

    ``decay`` fixes the number of candidates, so unlike other numbers it cannot be traced.
    """

    population: int = option(128, "new candidates in the first iteration", low=1)
    decay: float = option(1.25, "each iteration has this many times fewer new candidates", low=1.0)
    elites: int = option(10, "candidates that the next Gaussian is fitted to", low=1)
    keep: int = option(3, "elites that compete again in the next iteration, and in the next search", low=1)
    iterations: int = option(5, "refits", low=1)
    alpha: float = option(0.1, "share of the old mean and standard deviation that is kept", low=0.0, high=1.0)
    exponent: float = option(2.0, "power of the noise falls as frequency^-exponent over time", low=0.0)
    std: float = option(0.5, "first standard deviation, as a share of half the range", above=0.0)

    def check(self) -> None:
        """Kept ones are elites, elites are candidates, and the sizes are known."""
        if self.elites > self.population:
            raise ConfigError(f"elites: got {self.elites}, needs at most population = {self.population}")
        if self.keep > self.elites:
            raise ConfigError(f"keep: got {self.keep}, needs at most elites = {self.elites}")
        if not isinstance(self.decay, int | float):
            raise ConfigError(f"decay: got {self.decay}, needs a plain number, as it fixes the number of candidates")


class Plan(NamedTuple):
    """The warm start.

    Attributes:
        mean: [*S], where the next search starts.
        elites: [keep, *S], candidates of the last search that compete in the next one.
    """

    mean: Array
    elites: Array


def init(*, low: Array, high: Array, keep: int = 3) -> Plan:
    """Start from the middle of the bounds, which also stands in for the elites that do not exist yet."""
    middle = (low + high) / 2
    return Plan(middle, jnp.tile(middle, (keep, *(1,) * middle.ndim)))


def sizes(population: int, decay: float, elites: int, iterations: int) -> tuple[int, ...]:
    """New candidates in each iteration: population / decay^i, but not fewer than twice the elites.

    Example:
        >>> sizes(population=100, decay=2.0, elites=15, iterations=4)
        (100, 50, 30, 30)
    """
    least = min(2 * elites, population)
    return tuple(max(int(population / decay**i), least) for i in range(iterations))


def refit(mean: Array, std: Array, elites: Array, *, alpha: float | Array = 0.1) -> tuple[Array, Array]:
    """Move mean [*S] and standard deviation [*S] towards those of the elites [K, *S], keeping a share alpha."""
    new_mean = alpha * mean + (1 - alpha) * jnp.mean(elites, axis=0)
    return new_mean, alpha * std + (1 - alpha) * jnp.std(elites, axis=0)


class _Search(NamedTuple):
    """Carry of the iterations: the Gaussian, the elites that live on (best first)."""

    mean: Array
    std: Array
    elites: Array


def search(
    key: Key,
    objective: Objective,
    plan: Plan,
    *,
    low: Array,
    high: Array,
    population: int = 128,
    decay: float = 1.25,
    elites: int = 10,
    iterations: int = 5,
    alpha: float | Array = 0.1,
    exponent: float | Array = 2.0,
    std: float | Array = 0.5,
) -> tuple[Array, Plan, PlanInfo]:
    """CEM with coloured noise along the first axis, a shrinking population, and elites that compete again.

    The last iteration also tries the mean, in place of one sample, and the best of its candidates is the solution.
    Each scan covers the iterations of equal size, so the objective compiles once for each size that `sizes` gives:
    choose ``decay=1`` where compile time matters more than samples.

    Args:
        key: consumed; the objective gets a fresh key each iteration.
        objective: ``(key, candidates [N, *S]) -> scores [N]``, higher is better.
        plan: the warm start; its elites compete in the first iteration.
        low: [*S].
        high: [*S].
        population: new candidates in the first iteration.
        decay: factor by which they shrink each iteration.
        elites: K.
        iterations: I.
        alpha: [], share of the old mean and standard deviation that is kept.
        exponent: [], of the noise's power spectrum; 0 is white.
        std: [], first standard deviation, as a share of half the range.

    Returns:
        The best candidate [*S] of the last iteration, the plan, and the info of each iteration.

    Source: Pinneri et al. 2020, Alg. 1 and section 3, arXiv:2008.06389.

    Differs from the paper: in the first search of all, the middle of the bounds stands in for the old elites; after
    a shift, the last step of plan and elites is the middle of the bounds, and not a repetition or a new sample.
    """
    keep = plan.elites.shape[0]

    def iterate(carry: _Search, inputs: tuple[Key, Array, Array]) -> tuple[_Search, PlanInfo]:
        key, noise, is_last = inputs
        fresh = carry.mean + carry.std * noise
        fresh = fresh.at[0].set(jnp.where(is_last, carry.mean, fresh[0]))
        candidates = jnp.concatenate([carry.elites, jnp.clip(fresh, low, high)])
        scores = evaluate(objective, key, candidates)
        best = select(candidates, scores, elites)
        carry = _Search(*refit(carry.mean, carry.std, best, alpha=alpha), best[:keep])
        return carry, report(candidates, scores, low, high)

    counts = sizes(population, decay, elites, iterations)
    key_noise, key_objective = jax.random.split(key)
    noise = power_law(key_noise, sum(counts), low.shape, exponent)  # in one call: it compiles once for all sizes
    keys, is_last = jax.random.split(key_objective, iterations), jnp.arange(iterations) == iterations - 1
    carry = _Search(plan.mean, std * (high - low) / 2, plan.elites)
    infos = []
    for size, run in itertools.groupby(range(iterations), key=counts.__getitem__):
        which = np.array(list(run))
        block = noise[sum(counts[: which[0]]) :][: size * which.size].reshape(-1, size, *low.shape)
        carry, info = jax.lax.scan(iterate, carry, (keys[which], block, is_last[which]))
        infos.append(info)
    info = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *infos)
    return carry.elites[0], Plan(jnp.clip(carry.mean, low, high), carry.elites), info


def make(shape: tuple[int, ...], low: Any, high: Any, config: Config) -> Planner:
    """An iCEM `Planner` of arrays of ``shape`` (the first axis is time) within bounds that broadcast to it."""
    low, high = bounds(shape, low, high)
    return Planner(
        init=functools.partial(init, low=low, high=high, keep=config.keep),
        plan=functools.partial(
            search,
            low=low,
            high=high,
            population=config.population,
            decay=config.decay,
            elites=config.elites,
            iterations=config.iterations,
            alpha=jnp.asarray(config.alpha, jnp.float32),
            exponent=jnp.asarray(config.exponent, jnp.float32),
            std=jnp.asarray(config.std, jnp.float32),
        ),
    )
