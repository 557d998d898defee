r"""Soft actor-critic with a learned temperature (Haarnoja et al. 2018, arXiv:1812.05905, Alg. 1).

    critics:      least squares on  r + gamma d (min_c Q'_c(s', a') - alpha log pi(a'|s'))
    actor:        maximise  min_c Q_c(s, a) - alpha log pi(a|s),  a re-parametrised
    temperature:  alpha rises where the policy's entropy, -log pi(a|s), is below its target, and falls where it is above
    targets:      Q' <- Q' + rate (Q - Q')

Differs from the paper: the temperature's step is on log alpha with the gradient that its released code takes,
:math:`-\log \alpha \, (\log \pi + \bar H)`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import configurable, option
from jaxmbrl.models.angles import encode
from jaxmbrl.models.networks import ACTIVATIONS, MLP
from jaxmbrl.policies import actor_critic, squashed
from jaxmbrl.policies.actor_critic import ActorCritic, Bootstrap, Examples, Objective, PolicyLoss
from jaxmbrl.types import Array, Key, Metrics, PyTree, Spec, Transition


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


class _Design(NamedTuple):
    """What the functions below are bound to."""

    spec: Spec
    config: Config
    actor: MLP
    critic: MLP
    optimiser: optax.GradientTransformation


def make(spec: Spec, config: Config | None = None) -> ActorCritic:
    """Bind soft actor-critic to an environment's spec. Raises ValueError where actions are discrete."""
    config = config or Config()
    actor = MLP(config.hidden, 2 * spec.box.size, config.activation)
    critic = MLP(config.hidden, 1, config.activation)
    design = _Design(spec, config, actor, critic, optax.adam(config.learning_rate))
    learner = ActorCritic(
        init=partial(_init, design),
        act=partial(_act, design),
        update=lambda state, key, batch: _update(learner, state, key, batch),
        policy=partial(_policy, design),
        infer_noise=partial(_infer_noise, design),
        values=partial(actor_critic.critic_values, critic, spec),
        bootstrap=partial(_bootstrap, design),
        learn=partial(_learn, design),
        temperature=lambda state: jnp.exp(state.log_temperature),
        discount=config.discount,
    )
    return learner


def _init(design: _Design, key: Key) -> State:
    key_actor, key_critics = jax.random.split(key)
    spec = design.spec
    actor = design.actor.init(key_actor, jnp.zeros(spec.obs_size + len(spec.angles)))
    critics = actor_critic.init_critics(design.critic, spec, key_critics, design.config.critics)
    log_temperature = jnp.log(jnp.asarray(design.config.initial_temperature, jnp.float32))
    states = (design.optimiser.init(params) for params in (actor, critics, log_temperature))
    return State(actor, critics, jax.tree.map(jnp.copy, critics), log_temperature, *states)


def _policy(design: _Design, actor: PyTree, noise: Array, obs: Array) -> tuple[Array, Array]:
    outputs = jnp.asarray(design.actor.apply(actor, encode(obs, design.spec.angles)))
    unit, log_prob = squashed.act(*squashed.split(outputs), noise)
    return squashed.from_unit(unit, design.spec.box), log_prob


def _infer_noise(design: _Design, actor: PyTree, obs: Array, action: Array) -> Array:
    outputs = jnp.asarray(design.actor.apply(actor, encode(obs, design.spec.angles)))
    return squashed.infer_noise(*squashed.split(outputs), squashed.to_unit(action, design.spec.box))


def _act(design: _Design, state: State, key: Key, obs: Array, *, explore: bool) -> Array:
    size = design.spec.box.size
    noise = jax.random.normal(key, (size,)) if explore else jnp.zeros(size)
    return _policy(design, state.actor, noise, obs)[0]


def _bootstrap(design: _Design, state: State, noise: Array, obs: Array) -> Bootstrap:
    action, log_prob = _policy(design, state.actor, noise, obs)
    values = actor_critic.critic_values(design.critic, design.spec, state.targets, obs, action)
    return Bootstrap(action, values, -jnp.exp(state.log_temperature) * log_prob)


def _update(learner: ActorCritic, state: State, key: Key, batch: Transition) -> tuple[State, Metrics]:
    key_target, key_learn = jax.random.split(key)
    examples = actor_critic.one_step_examples(learner, state, key_target, batch)
    return learner.learn(state, key_learn, batch.obs, examples)


def _policy_loss(design: _Design, state: State, actor: PyTree, key: Key, obs: Array) -> PolicyLoss:
    """SAC's own objective: the least critic's value and the entropy, by one action in each state."""
    noise = jax.random.normal(key, (obs.shape[0], design.spec.box.size))
    action, log_prob = jax.vmap(partial(_policy, design, actor))(noise, obs)
    values = jax.vmap(partial(actor_critic.critic_values, design.critic, design.spec, state.critics))(obs, action)
    return PolicyLoss(jnp.mean(jnp.exp(state.log_temperature) * log_prob - jnp.min(values, axis=1)), log_prob)


def _learn(
    design: _Design, state: State, key: Key, obs: Array, examples: Examples, *, objective: Objective | None = None
) -> tuple[State, Metrics]:
    config, optimiser = design.config, design.optimiser
    values = partial(actor_critic.critic_values, design.critic, design.spec)
    critics, critic_optimiser, metrics = actor_critic.critic_step(
        values, optimiser, state.critics, state.critic_optimiser, examples
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
    state = state._replace(
        actor=actor,
        actor_optimiser=actor_optimiser,
        log_temperature=log_temperature,
        temperature_optimiser=temperature_optimiser,
    )
    return state, metrics
