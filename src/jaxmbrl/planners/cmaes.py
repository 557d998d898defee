r"""CMA-ES: a Gaussian search distribution whose mean, step size and full covariance adapt to ranks of scores.

    sample    x_k = m + sigma y_k,   y_k = C^(1/2) z_k,   z_k ~ N(0, I)
    move      m += sigma sum_k w_k y_(k),  (k) being the rank
    adapt     sigma by the length of the path of C^(-1/2) steps; C by the path of steps and by the weighted y_k

Coordinates are shares of half the range, from the middle of the bounds.

Source: Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772: Fig. 6, Table 1; equations are its own.

Differs from the tutorial: the square root of C is the symmetric one, which does not depend on the order or the sign of
eigenvectors; C is decomposed in every generation; a candidate beyond the bounds is moved to them, and counts there.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmbrl import lapack
from jaxmbrl.config import configurable, option
from jaxmbrl.planners.candidates import Objective, PlanInfo, bounds, evaluate, report
from jaxmbrl.types import Array, Key, Planner

MIN_EIGENVALUE = 1e-7  # of C, as a share of the largest: float32 tells no smaller one from 0


@configurable
class Config:
    """Options of `make`; the defaults are World Models' (Ha and Schmidhuber 2018, arXiv:1803.10122, App. A.4)."""

    population: int = option(64, "candidates a generation (lambda)", low=4)
    iterations: int = option(100, "generations", low=1)
    std: float = option(0.1, "first standard deviation (sigma), as a share of half the range", above=0.0)


class Plan(NamedTuple):
    """The warm start.

    Attributes:
        mean: [*S], where the next search starts; step size and covariance start afresh.
    """

    mean: Array


class Constants(NamedTuple):
    """The tutorial's strategy parameters (Table 1) for lambda candidates of dimension n.

    Attributes:
        weights: w_i by rank, best first, [lambda]; positive ones sum to 1, those of the worse half are negative.
        mu_eff: variance-effective selection mass.
        c_sigma: rate of the step size's path.
        d_sigma: damping of the step size.
        c_c: rate of the covariance's path.
        c_1: rate of the rank-one update.
        c_mu: rate of the rank-mu update.
        length: expected length of a standard normal vector.
    """

    weights: np.ndarray
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    length: float


class State(NamedTuple):
    """The search distribution.

    Attributes:
        mean: m, [n].
        std: sigma, [].
        covariance: C, [n, n].
        path_std: p_sigma, [n].
        path_covariance: p_c, [n].
        generation: int32 [], so far.
    """

    mean: Array
    std: Array
    covariance: Array
    path_std: Array
    path_covariance: Array
    generation: Array


def constants(size: int, population: int) -> Constants:
    """Strategy parameters for ``size`` dimensions (n) and ``population`` candidates (lambda), eq. 49 to 58."""
    raw = np.log((population + 1) / 2) - np.log(np.arange(1, population + 1))
    best, worst = raw[: population // 2], raw[population // 2 :]
    mu_eff, mu_eff_worst = (half.sum() ** 2 / np.square(half).sum() for half in (best, worst))
    c_1 = 2 / ((size + 1.3) ** 2 + mu_eff)
    c_mu = min(1 - c_1, 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((size + 2) ** 2 + mu_eff))
    negative = min(1 + c_1 / c_mu, 1 + 2 * mu_eff_worst / (mu_eff + 2), (1 - c_1 - c_mu) / (size * c_mu))
    scale = np.where(raw >= 0, 1 / raw[raw > 0].sum(), negative / -raw[raw < 0].sum())
    c_sigma = (mu_eff + 2) / (size + mu_eff + 5)
    return Constants(
        weights=raw * scale,
        mu_eff=mu_eff,
        c_sigma=c_sigma,
        d_sigma=1 + 2 * max(0.0, np.sqrt((mu_eff - 1) / (size + 1)) - 1) + c_sigma,
        c_c=(4 + mu_eff / size) / (size + 4 + 2 * mu_eff / size),
        c_1=c_1,
        c_mu=c_mu,
        length=np.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size**2)),
    )


def begin(mean: Array, std: float | Array) -> State:
    """A round search distribution around ``mean`` [n]."""
    zeros = jnp.zeros_like(mean)
    return State(mean, jnp.asarray(std, jnp.float32), jnp.eye(mean.size), zeros, zeros, jnp.zeros((), jnp.int32))


def roots(covariance: Array) -> tuple[Array, Array]:
    """The symmetric square root of C [n, n] and its inverse."""
    eigenvalues, vectors = _eigh(covariance)
    scale = jnp.sqrt(jnp.maximum(eigenvalues, MIN_EIGENVALUE * eigenvalues[-1]))
    return (vectors * scale) @ vectors.T, (vectors / scale) @ vectors.T


@lapack.in_turn
def _eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues [n], rising, and eigenvectors [n, n], in columns."""
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    return eigenvalues, vectors


def tell(state: State, inverse_root: Array, candidates: Array, scores: Array, numbers: Constants) -> State:
    """Adapt the search distribution to the ranks of scores.

    Args:
        state: the distribution that gave the candidates.
        inverse_root: C^(-1/2), [n, n].
        candidates: x, [lambda, n].
        scores: [lambda], higher is better.
        numbers: see `constants`.

    Returns:
        The next distribution.
    """
    n, weights = state.mean.size, jnp.asarray(numbers.weights, jnp.float32)
    steps = (candidates[jnp.argsort(-scores)] - state.mean) / state.std  # y, best first
    mean_step = jnp.maximum(weights, 0.0) @ steps

    path_std = (1 - numbers.c_sigma) * state.path_std
    path_std += np.sqrt(numbers.c_sigma * (2 - numbers.c_sigma) * numbers.mu_eff) * (inverse_root @ mean_step)
    length = jnp.linalg.norm(path_std)
    std = state.std * jnp.exp(numbers.c_sigma / numbers.d_sigma * (length / numbers.length - 1))

    # While sigma still grows fast, the covariance's path stands still (h_sigma = 0).
    settled = jnp.sqrt(1 - (1 - numbers.c_sigma) ** (2.0 * (state.generation + 1)))
    moves = (length / settled < (1.4 + 2 / (n + 1)) * numbers.length).astype(jnp.float32)
    path = (1 - numbers.c_c) * state.path_covariance
    path += moves * np.sqrt(numbers.c_c * (2 - numbers.c_c) * numbers.mu_eff) * mean_step

    # A negative weight must not make C indefinite: bad steps count by direction, at the length sqrt(n).
    squares = jnp.sum(jnp.square(steps @ inverse_root), axis=1)
    each = jnp.where(weights < 0, weights * n / jnp.maximum(squares, 1e-12), weights)
    keep = 1 - numbers.c_1 * (1 - (1 - moves) * numbers.c_c * (2 - numbers.c_c)) - numbers.c_mu * jnp.sum(weights)
    covariance = keep * state.covariance + numbers.c_1 * jnp.outer(path, path)
    covariance += numbers.c_mu * jnp.einsum("k,ki,kj->ij", each, steps, steps)
    return State(state.mean + state.std * mean_step, std, covariance, path_std, path, state.generation + 1)


def search(
    key: Key,
    objective: Objective,
    plan: Plan,
    *,
    low: Array,
    high: Array,
    population: int = 64,
    iterations: int = 100,
    std: float | Array = 0.1,
) -> tuple[Array, Plan, PlanInfo]:
    """Adapt a search distribution for ``iterations`` generations.

    Args:
        key: consumed; the objective gets a fresh key each generation.
        objective: ``(key, candidates [N, *S]) -> scores [N]``, higher is better.
        plan: the warm start.
        low: [*S].
        high: [*S].
        population: N.
        iterations: I.
        std: [], sigma at first, as a share of half the range.

    Returns:
        The final mean [*S], the plan that holds it, and the info of each generation.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    numbers = constants(low.size, population)

    def place(points: Array) -> Array:
        """Shares of half the range [..., n] as solutions [..., *S] within the bounds."""
        return jnp.clip(middle + half * points.reshape((*points.shape[:-1], *low.shape)), low, high)

    def generation(state: State, key: Key) -> tuple[State, PlanInfo]:
        key_candidates, key_objective = jax.random.split(key)
        root, inverse_root = roots(state.covariance)
        noise = jax.random.normal(key_candidates, (population, low.size))
        points = jnp.clip(state.mean + state.std * noise @ root, -1.0, 1.0)
        candidates = place(points)
        scores = jax.lax.stop_gradient(evaluate(objective, key_objective, candidates))  # only ranks count
        return tell(state, inverse_root, points, scores, numbers), report(candidates, scores, low, high)

    start = begin(jax.lax.stop_gradient(((plan.mean - middle) / half).reshape(-1)), std)
    state, info = jax.lax.scan(generation, start, jax.random.split(key, iterations))
    mean = place(state.mean)
    return mean, Plan(mean), info


def make(shape: tuple[int, ...], low: Any, high: Any, config: Config) -> Planner:
    """A CMA-ES `Planner` of arrays of ``shape`` within bounds that broadcast to it."""
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
        ),
    )
