"""Proximal policy optimisation with a clipped ratio (Schulman et al. 2017, arXiv:1707.06347, Sec. 3, Alg. 1).

    advantages by GAE, then K epochs of minibatch Adam on  E[min(rho A, clip(rho, 1 - eps, 1 + eps) A)]

Differs from the paper: the value function has a network, an optimiser and minibatches of its own; the policy is
squashed by tanh (see `gaussian`); the step size is not annealed.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import configurable, option
from jaxmbrl.models.networks import ACTIVATIONS, MLP
from jaxmbrl.policies import gaussian, on_policy
from jaxmbrl.policies.on_policy import Examples
from jaxmbrl.types import Array, Key, Learner, Metrics, PyTree, Spec


@configurable
class Config:
    """The MuJoCo settings of the paper (Table 3)."""

    hidden: tuple[int, ...] = option((64, 64), "widths of the policy's hidden layers", low=1)
    value_hidden: tuple[int, ...] = option((64, 64), "widths of the value function's hidden layers", low=1)
    activation: str = option("tanh", "activation function of both", choices=tuple(ACTIVATIONS))
    init_log_std: float = option(-0.5, "log of the first std, of actions before squashing")
    discount: float = option(0.99, "of rewards, a step (gamma)", low=0.0, high=1.0)
    lambda_: float = option(0.95, "of generalised advantages", low=0.0, high=1.0)
    learning_rate: float = option(3e-4, "the policy's Adam step size", above=0.0)
    epochs: int = option(10, "passes over a batch", low=1)
    batch_size: int = option(64, "steps in a minibatch", low=1)
    clip: float = option(0.2, "how far a probability ratio may gain (epsilon)", above=0.0)
    entropy: float = option(0.0, "weight of the policy's entropy", low=0.0)
    max_gradient: float = option(0.5, "gradient norms above are scaled down to it", above=0.0)
    value_learning_rate: float = option(3e-4, "the value function's Adam step size", above=0.0)
    value_epochs: int = option(10, "the value function's passes over a batch", low=1)
    value_batch_size: int = option(64, "steps in its minibatch", low=1)


def make(spec: Spec, config: Config | None = None) -> Learner:
    """Bind PPO to an environment with vector observations and continuous actions."""
    config = config or Config()
    optimiser = optax.chain(optax.clip_by_global_norm(config.max_gradient), optax.adam(config.learning_rate))
    return on_policy.make(spec, config, partial(_improve, config, optimiser), optimiser)


def loss(
    network: MLP, policy: gaussian.Params, examples: Examples, *, clip: float | Array, entropy: float | Array = 0.0
) -> Array:
    r"""What is minimised, a mean over the examples.

    .. math:: -E\left[\min(\rho A, \mathrm{clip}(\rho, 1 - \epsilon, 1 + \epsilon) A) + c\, \mathcal{H}\right]
    """

    def one(example: Examples) -> Array:
        new = gaussian.distribution(network, policy, example.seen)
        ratio = jnp.exp(gaussian.log_prob(new, example.raw) - gaussian.log_prob(example.old, example.raw))
        clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
        gain = jnp.minimum(ratio * example.advantage, clipped * example.advantage)
        return -gain - entropy * gaussian.entropy(new)

    return jnp.mean(jax.vmap(one)(examples))


def _improve(
    config: Config,
    optimiser: optax.GradientTransformation,
    network: MLP,
    policy: gaussian.Params,
    state: PyTree,
    key: Key,
    examples: Examples,
) -> tuple[gaussian.Params, PyTree, Metrics]:
    num = len(examples.advantage)
    batches = max(num // config.batch_size, 1)

    def step(carry: tuple[gaussian.Params, PyTree], index: Array) -> tuple[tuple[gaussian.Params, PyTree], Array]:
        policy, state = carry
        chosen = jax.tree.map(lambda leaf: leaf[index], examples)
        objective = partial(loss, network, examples=chosen, clip=config.clip, entropy=config.entropy)
        error, gradient = jax.value_and_grad(objective)(policy)
        updates, state = optimiser.update(gradient, state, policy)
        return (jax.tree.map(jnp.add, policy, updates), state), error

    index = on_policy.minibatches(key, num, config.epochs, batches, num // batches)
    (policy, state), errors = jax.lax.scan(step, (policy, state), index)
    new = jax.vmap(partial(gaussian.distribution, network, policy))(examples.seen)
    divergence = jnp.mean(jax.vmap(gaussian.kl)(examples.old, new))
    return policy, state, {"policy_loss": jnp.mean(errors[-batches:]), "policy_kl": divergence}
