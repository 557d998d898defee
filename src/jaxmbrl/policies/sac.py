r"""Soft actor-critic with a learned temperature (Haarnoja et al. 2018, arXiv:1812.05905, Alg. 1).

    critics:      least squares on  r + gamma d (min_c Q'_c(s', a') - alpha log pi(a'|s'))
    actor:        maximise  min_c Q_c(s, a) - alpha log pi(a|s),  a re-parametrised
    temperature:  alpha rises where the policy's entropy, -log pi(a|s), is below its target, and falls where it is above
    targets:      Q' <- Q' + rate (Q - Q')

Differs from the paper: the temperature's step is on log alpha, down the loss of its released code,
:math:`-\log \alpha \, (\log \pi + \bar H)`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.config import configurable, option
from jaxmbrl.models.networks import ACTIVATIONS
from jaxmbrl.policies import actor_critic, squashed
from jaxmbrl.policies.actor_critic import ActorCritic, Bootstrap, Design, Examples, Objective, PolicyLoss
from jaxmbrl.types import Array, Key, Metrics, PyTree, Spec


@configurable
class Config:
    """Options of `make`; the defaults are the paper's (App. D)."""

    hidden: tuple[int, ...] = option((256, 256), "widths of the hidden layers, actor and critics alike", low=1)
    activation: str = option("relu", "activation function", choices=tuple(ACTIVATIONS))
    critics: int = option(2, "critics, the least of which counts (C)", low=1)
    learning_rate: float = option(3e-4, "Adam's step size, of all networks and the temperature", above=0.0)
    discount: float = option(0.99, "gamma", low=0.0, high=1.0)
    target_rate: float = option(5e-3, "by how much target critics move towards the critics", low=0.0, high=1.0)
    target_entropy: float = option(-1.0, "of the policy, nats for each action dimension, in units of half the range")
    initial_temperature: float = option(1.0, "alpha before the first update", above=0.0)


class State(NamedTuple):
    """Parameters, target parameters and Adam's states.

    Attributes:
        actor: the policy network's parameters.
        critics: leaves [C, ...].
        targets: slowly following copies of the critics.
        log_temperature: [], log alpha.
        actor_optimiser: Adam's state, as are the others.
        critic_optimiser: of the critics.
        temperature_optimiser: of log alpha.
    """

    actor: PyTree
    critics: PyTree
    targets: PyTree
    log_temperature: Array
    actor_optimiser: PyTree
    critic_optimiser: PyTree
    temperature_optimiser: PyTree


def make(spec: Spec, config: Config | None = None) -> ActorCritic:
    """Bind soft actor-critic to an environment's spec. Raises ValueError where actions are discrete."""
    return actor_critic.bind(
        actor_critic.design(spec, config or Config(), outputs=2),
        init=_init,
        act=_act,
        policy=_policy,
        infer_noise=_infer_noise,
        bootstrap=_bootstrap,
        learn=_learn,
        temperature=lambda design, state: jnp.exp(state.log_temperature),
    )


def _init(design: Design, key: Key) -> State:
    actor, critics = actor_critic.init_networks(design, key)
    log_temperature = jnp.log(jnp.asarray(design.config.initial_temperature, jnp.float32))
    states = (design.optimiser.init(params) for params in (actor, critics, log_temperature))
    return State(actor, critics, jax.tree.map(jnp.copy, critics), log_temperature, *states)


def _policy(design: Design, actor: PyTree, noise: Array, obs: Array) -> tuple[Array, Array]:
    outputs = actor_critic.outputs(design, actor, obs)
    unit, log_prob = squashed.act(*squashed.split(outputs), noise)
    return squashed.from_unit(unit, design.spec.box), log_prob


def _infer_noise(design: Design, actor: PyTree, obs: Array, action: Array) -> Array:
    outputs = actor_critic.outputs(design, actor, obs)
    return squashed.infer_noise(*squashed.split(outputs), squashed.to_unit(action, design.spec.box))


def _act(design: Design, state: State, key: Key, obs: Array, *, explore: bool) -> Array:
    size = design.spec.box.size
    noise = jax.random.normal(key, (size,)) if explore else jnp.zeros(size)
    return _policy(design, state.actor, noise, obs)[0]


def _bootstrap(design: Design, state: State, noise: Array, obs: Array) -> Bootstrap:
    action, log_prob = _policy(design, state.actor, noise, obs)
    values = actor_critic.values(design, state.targets, obs, action)
    return Bootstrap(action, values, -jnp.exp(state.log_temperature) * log_prob)


def _policy_loss(design: Design, state: State, actor: PyTree, key: Key, obs: Array) -> PolicyLoss:
    """SAC's own objective: the least critic's value and the entropy, by one action in each state."""
    noise = jax.random.normal(key, (obs.shape[0], design.spec.box.size))
    action, log_prob = jax.vmap(partial(_policy, design, actor))(noise, obs)
    values = jax.vmap(partial(actor_critic.values, design, state.critics))(obs, action)
    return PolicyLoss(jnp.mean(jnp.exp(state.log_temperature) * log_prob - jnp.min(values, axis=1)), log_prob)


def _learn(
    design: Design, state: State, key: Key, obs: Array, examples: Examples, *, objective: Objective | None = None
) -> tuple[State, Metrics]:
    config, optimiser = design.config, design.optimiser
    critics, critic_optimiser, metrics = actor_critic.critic_step(
        design, state.critics, state.critic_optimiser, examples
    )
    state = state._replace(
        critics=critics,
        critic_optimiser=critic_optimiser,
        targets=actor_critic.track(state.targets, critics, config.target_rate),
    )
    policy_loss = objective or partial(_policy_loss, design)

    def actor_loss(actor: PyTree) -> tuple[Array, PolicyLoss]:
        result = policy_loss(state, actor, key, obs)
        return result.loss, result

    gradient, result = jax.grad(actor_loss, has_aux=True)(state.actor)
    actor, actor_optimiser = actor_critic.descend(optimiser, gradient, state.actor, state.actor_optimiser)
    surplus = -jnp.mean(result.log_prob) - config.target_entropy * design.spec.box.size  # of entropy
    log_temperature, temperature_optimiser = actor_critic.descend(
        optimiser, surplus, state.log_temperature, state.temperature_optimiser
    )
    metrics |= {
        "actor_loss": result.loss,
        "entropy": -jnp.mean(result.log_prob),
        "temperature": jnp.exp(log_temperature),
    }
    metrics |= result.metrics or {}
    state = state._replace(
        actor=actor,
        actor_optimiser=actor_optimiser,
        log_temperature=log_temperature,
        temperature_optimiser=temperature_optimiser,
    )
    return state, metrics
