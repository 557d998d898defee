r"""Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477, Sec. 6 and App. C).

.. math:: \max_\theta E[\rho_\theta A] \quad\text{subject to}\quad E[KL(\pi_{old} \| \pi_\theta)] \le \delta

Conjugate gradient solves :math:`F x = g`, with F the Fisher matrix, and the step :math:`\sqrt{2 \delta / x^T F x}\, x`
is halved until the constraint holds and the objective has improved. F is never formed: a product with it takes one
forward and one backward pass. Everything, the line search included, is inside the program: all of its steps are looked
at, and the longest that will do is taken.

Differs from the paper: advantages are generalised (GAE); the policy is squashed by tanh (see `gaussian`).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxmbrl.config import configurable, option
from jaxmbrl.models.networks import ACTIVATIONS, MLP
from jaxmbrl.policies import gaussian, on_policy
from jaxmbrl.policies.on_policy import Examples
from jaxmbrl.types import Array, Key, Learner, Metrics, PyTree, Spec


@configurable
class Config:
    """The settings that Kurutach et al. 2018 (arXiv:1802.10592) and rllab use; the paper's delta is 0.01 as well."""

    hidden: tuple[int, ...] = option((32, 32), "widths of the policy's hidden layers", low=1)
    value_hidden: tuple[int, ...] = option((64, 64), "widths of the value function's hidden layers", low=1)
    activation: str = option("tanh", "activation function of both", choices=tuple(ACTIVATIONS))
    init_log_std: float = option(0.0, "log of the first std, of actions before squashing")
    discount: float = option(0.99, "of rewards, a step (gamma)", low=0.0, high=1.0)
    lambda_: float = option(0.97, "of generalised advantages", low=0.0, high=1.0)
    max_kl: float = option(0.01, "most mean divergence of a step, in nats (delta)", above=0.0)
    damping: float = option(0.1, "times the identity, added to the Fisher matrix", low=0.0)
    iterations: int = option(10, "of conjugate gradient", low=1)
    halvings: int = option(10, "step lengths that the line search looks at", low=1)
    value_learning_rate: float = option(1e-3, "the value function's Adam step size", above=0.0)
    value_epochs: int = option(10, "the value function's passes over a batch", low=1)
    value_batch_size: int = option(256, "steps in its minibatch", low=1)


class Search(NamedTuple):
    """Outcome of a line search.

    Attributes:
        step: flat [D], 0 where no length will do.
        fraction: [], of the full step.
        gain: [], of the surrogate objective.
        divergence: [], mean KL in nats.
    """

    step: Array
    fraction: Array
    gain: Array
    divergence: Array


def make(spec: Spec, config: Config | None = None) -> Learner:
    """Bind TRPO to an environment with vector observations and continuous actions."""
    config = config or Config()
    return on_policy.make(spec, config, partial(_improve, config), None)


def surrogate(network: MLP, policy: gaussian.Params, examples: Examples) -> Array:
    r"""The mean of :math:`\rho A`, []; its gradient where the policy is the old one is the policy gradient."""

    def one(example: Examples) -> Array:
        new = gaussian.distribution(network, policy, example.seen)
        ratio = jnp.exp(gaussian.log_prob(new, example.raw) - gaussian.log_prob(example.old, example.raw))
        return ratio * example.advantage

    return jnp.mean(jax.vmap(one)(examples))


def divergence(network: MLP, policy: gaussian.Params, examples: Examples) -> Array:
    """The mean of KL(old || policy), []."""
    new = jax.vmap(partial(gaussian.distribution, network, policy))(examples.seen)
    return jnp.mean(jax.vmap(gaussian.kl)(examples.old, new))


def fisher_product(network: MLP, policy: gaussian.Params, seen: Array) -> Callable[[Array], Array]:
    r"""Products with the Fisher matrix of a policy at inputs [N, I], flat [D] -> [D].

    .. math:: F v = \frac{1}{N} \sum_n J_n^T M_n J_n v

    where J is the Jacobian of (mean, log_std) by the parameters, linearised once, and M their own Fisher matrix,
    diag(1 / std^2, 2). It is the Hessian of the mean KL at the old policy, in which the second derivatives of the
    network have no part.
    """
    flat, unravel = ravel_pytree(policy)

    def outputs(flat: Array) -> gaussian.Gaussian:
        return jax.vmap(partial(gaussian.distribution, network, unravel(flat)))(seen)

    old, forward = jax.linearize(outputs, flat)
    backward = jax.linear_transpose(forward, flat)

    def product(vector: Array) -> Array:
        change = forward(vector)
        pulled = gaussian.Gaussian(change.mean * jnp.exp(-2.0 * old.log_std), 2.0 * change.log_std)
        return backward(jax.tree.map(lambda leaf: leaf / len(seen), pulled))[0]

    return product


def conjugate_gradient(product: Callable[[Array], Array], target: Array, iterations: int) -> Array:
    """Solve A x = target [D] for a positive definite A that is given by its products, from x = 0.

    The number of iterations is fixed; once the residual is 0 to rounding, nothing moves any more.
    """

    def step(carry: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
        solution, residual, direction, square = carry
        image = product(direction)
        curvature = direction @ image
        going = (square > 1e-20) & (curvature > 0)
        length = jnp.where(going, square / jnp.where(going, curvature, 1.0), 0.0)
        solution, residual = solution + length * direction, residual - length * image
        new_square = residual @ residual
        direction = residual + jnp.where(going, new_square / jnp.where(going, square, 1.0), 0.0) * direction
        return (solution, residual, direction, new_square), None

    start = (jnp.zeros_like(target), target, target, target @ target)
    return jax.lax.scan(step, start, length=iterations)[0][0]


def line_search(
    network: MLP, policy: gaussian.Params, examples: Examples, full: Array, *, max_kl: float | Array, halvings: int
) -> Search:
    """The longest of ``full`` [D], half of it, a quarter, ... that improves the surrogate within the constraint."""
    flat, unravel = ravel_pytree(policy)
    before = surrogate(network, policy, examples)

    def look(fraction: Array) -> tuple[Array, Array]:
        candidate = unravel(flat + fraction * full)
        return surrogate(network, candidate, examples) - before, divergence(network, candidate, examples)

    fractions = 0.5 ** jnp.arange(halvings, dtype=jnp.float32)
    gains, divergences = jax.lax.map(look, fractions)  # in turn: the batch is large, its copies would not be small
    good = (gains > 0) & (divergences <= max_kl)  # not a number is not good
    best = jnp.argmax(good)
    fraction = jnp.where(good[best], fractions[best], 0.0)
    step = jnp.where(good[best], fraction * full, 0.0)
    return Search(step, fraction, *(jnp.where(good[best], x[best], 0.0) for x in (gains, divergences)))


def _improve(
    config: Config, network: MLP, policy: gaussian.Params, state: PyTree, key: Key, examples: Examples
) -> tuple[gaussian.Params, PyTree, Metrics]:
    del key  # the whole batch is used
    flat, unravel = ravel_pytree(policy)
    gradient = ravel_pytree(jax.grad(partial(surrogate, network))(policy, examples))[0]
    fisher = fisher_product(network, policy, examples.seen)

    def damped(vector: Array) -> Array:
        return fisher(vector) + config.damping * vector

    direction = conjugate_gradient(damped, gradient, config.iterations)
    curvature = direction @ damped(direction)
    full = jnp.sqrt(2.0 * config.max_kl / jnp.maximum(curvature, 1e-20)) * direction
    found = line_search(network, policy, examples, full, max_kl=config.max_kl, halvings=config.halvings)
    metrics = {"policy_gain": found.gain, "policy_kl": found.divergence, "step_fraction": found.fraction}
    return unravel(flat + found.step), state, metrics
