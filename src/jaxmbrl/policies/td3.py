r"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477, Alg. 1).

    critics:  least squares on  r + gamma d min_c Q'_c(s', clip(pi'(s') + clipped noise))
    actor:    maximise Q_1(s, pi(s)), every second update
    targets:  follow both, with the actor

With one critic, no target noise and no delay this is DDPG (Lillicrap et al. 2015, arXiv:1509.02971).

Differs from the paper: exploration noise is a share of half the action's range; the actor's step is computed at every
update and dropped at those it sits out, since under ``vmap`` a conditional would compute it anyway.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.config import configurable, option
from jaxmbrl.envs.wrappers import select
from jaxmbrl.models.networks import ACTIVATIONS
from jaxmbrl.policies import actor_critic, squashed
from jaxmbrl.policies.actor_critic import ActorCritic, Bootstrap, Design, Examples, Objective, PolicyLoss
from jaxmbrl.types import Array, Key, Metrics, PyTree, Spec


@configurable
class Config:
    """Options of `make`; the defaults are the paper's (App. C), standard deviations in units of half the range."""

    hidden: tuple[int, ...] = option((256, 256), "widths of the hidden layers, actor and critics alike", low=1)
    activation: str = option("relu", "activation function", choices=tuple(ACTIVATIONS))
    critics: int = option(2, "critics, the least of which counts (C)", low=1)
    learning_rate: float = option(1e-3, "Adam's step size, of all networks", above=0.0)
    discount: float = option(0.99, "gamma", low=0.0, high=1.0)
    target_rate: float = option(5e-3, "by how much targets move at each of the actor's updates", low=0.0, high=1.0)
    exploration: float = option(0.1, "std of the noise on actions that explore", low=0.0)
    target_noise: float = option(0.2, "std of the noise on the target policy's actions", low=0.0)
    target_noise_clip: float = option(0.5, "bound on that noise", low=0.0)
    delay: int = option(2, "updates of the critics for one of the actor", low=1)
    saturation_penalty: float = option(0.0, "weight of an action's mean square before its tanh (STEVE: 1e-3)", low=0.0)


class State(NamedTuple):
    """Parameters, their targets, Adam's states, and a clock.

    Attributes:
        actor: the policy network's parameters.
        critics: leaves [C, ...].
        target_actor: a slowly following copy of the actor.
        targets: slowly following copies of the critics.
        actor_optimiser: Adam's state.
        critic_optimiser: Adam's state.
        updates: int32 [], of the critics so far.
    """

    actor: PyTree
    critics: PyTree
    target_actor: PyTree
    targets: PyTree
    actor_optimiser: PyTree
    critic_optimiser: PyTree
    updates: Array


def make(spec: Spec, config: Config | None = None) -> ActorCritic:
    """Bind TD3 to an environment's spec. Raises ValueError where actions are discrete."""
    return actor_critic.bind(
        actor_critic.design(spec, config or Config(), outputs=1),
        init=_init,
        act=_act,
        policy=_policy,
        infer_noise=lambda design, actor, obs, action: jnp.zeros_like(action),
        bootstrap=_bootstrap,
        learn=_learn,
        temperature=lambda design, state: jnp.zeros(()),
    )


def _init(design: Design, key: Key) -> State:
    actor, critics = actor_critic.init_networks(design, key)
    copies = jax.tree.map(jnp.copy, (actor, critics))
    states = (design.optimiser.init(params) for params in (actor, critics))
    return State(actor, critics, *copies, *states, updates=jnp.zeros((), jnp.int32))


def _policy(design: Design, actor: PyTree, noise: Array, obs: Array) -> tuple[Array, Array]:
    del noise
    return squashed.from_unit(jnp.tanh(actor_critic.outputs(design, actor, obs)), design.spec.box), jnp.zeros(())


def _perturbed(design: Design, actor: PyTree, obs: Array, noise: Array) -> Array:
    unit = jnp.tanh(actor_critic.outputs(design, actor, obs)) + noise
    return squashed.from_unit(jnp.clip(unit, -1.0, 1.0), design.spec.box)


def _act(design: Design, state: State, key: Key, obs: Array, *, explore: bool) -> Array:
    size = design.spec.box.size
    noise = design.config.exploration * jax.random.normal(key, (size,)) if explore else jnp.zeros(size)
    return _perturbed(design, state.actor, obs, noise)


def _bootstrap(design: Design, state: State, noise: Array, obs: Array) -> Bootstrap:
    limit = design.config.target_noise_clip
    noise = jnp.clip(design.config.target_noise * noise, -limit, limit)
    action = _perturbed(design, state.target_actor, obs, noise)
    values = actor_critic.values(design, state.targets, obs, action)
    return Bootstrap(action, values, jnp.zeros(()))


def _policy_loss(design: Design, state: State, actor: PyTree, key: Key, obs: Array) -> PolicyLoss:
    """TD3's own objective: the first critic's value of the policy's action."""
    del key

    def loss(obs: Array) -> Array:
        x = actor_critic.outputs(design, actor, obs)
        action = squashed.from_unit(jnp.tanh(x), design.spec.box)
        value = actor_critic.values(design, state.critics, obs, action)[0]
        return design.config.saturation_penalty * jnp.mean(jnp.square(x)) - value

    return PolicyLoss(jnp.mean(jax.vmap(loss)(obs)), jnp.zeros(obs.shape[:1]))


def _learn(
    design: Design, state: State, key: Key, obs: Array, examples: Examples, *, objective: Objective | None = None
) -> tuple[State, Metrics]:
    config, optimiser = design.config, design.optimiser
    critics, critic_optimiser, metrics = actor_critic.critic_step(
        design, state.critics, state.critic_optimiser, examples
    )
    state = state._replace(critics=critics, critic_optimiser=critic_optimiser, updates=state.updates + 1)
    policy_loss = objective or partial(_policy_loss, design)

    def actor_loss(actor: PyTree) -> tuple[Array, PolicyLoss]:
        result = policy_loss(state, actor, key, obs)
        return result.loss, result

    gradient, result = jax.grad(actor_loss, has_aux=True)(state.actor)
    actor, actor_optimiser = actor_critic.descend(optimiser, gradient, state.actor, state.actor_optimiser)
    moved = state._replace(
        actor=actor,
        actor_optimiser=actor_optimiser,
        target_actor=actor_critic.track(state.target_actor, actor, config.target_rate),
        targets=actor_critic.track(state.targets, critics, config.target_rate),
    )
    state = moved if config.delay == 1 else select(state.updates % config.delay == 0, moved, state)
    return state, metrics | {"actor_loss": result.loss} | (result.metrics or {})
