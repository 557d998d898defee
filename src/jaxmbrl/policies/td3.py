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
import optax

from jaxmbrl.config import configurable, option
from jaxmbrl.envs.wrappers import select
from jaxmbrl.models.angles import encode
from jaxmbrl.models.networks import ACTIVATIONS, MLP
from jaxmbrl.policies import actor_critic, squashed
from jaxmbrl.policies.actor_critic import ActorCritic, Bootstrap, Examples, Objective, PolicyLoss
from jaxmbrl.types import Array, Key, Metrics, PyTree, Spec, Transition


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
    saturation_penalty: float = option(0.0, "weight of the squared actions before their tanh (STEVE: 1e-3)", low=0.0)


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


class _Design(NamedTuple):
    """What the functions below are bound to."""

    spec: Spec
    config: Config
    actor: MLP
    critic: MLP
    optimiser: optax.GradientTransformation


def make(spec: Spec, config: Config | None = None) -> ActorCritic:
    """Bind TD3 to an environment's spec. Raises ValueError where actions are discrete."""
    config = config or Config()
    actor = MLP(config.hidden, spec.box.size, config.activation)
    critic = MLP(config.hidden, 1, config.activation)
    design = _Design(spec, config, actor, critic, optax.adam(config.learning_rate))
    learner = ActorCritic(
        init=partial(_init, design),
        act=partial(_act, design),
        update=lambda state, key, batch: _update(learner, state, key, batch),
        policy=partial(_policy, design),
        infer_noise=lambda actor, obs, action: jnp.zeros_like(action),
        values=partial(actor_critic.critic_values, critic, spec),
        bootstrap=partial(_bootstrap, design),
        learn=partial(_learn, design),
        temperature=lambda state: jnp.zeros(()),
        discount=config.discount,
    )
    return learner


def _init(design: _Design, key: Key) -> State:
    key_actor, key_critics = jax.random.split(key)
    spec = design.spec
    actor = design.actor.init(key_actor, jnp.zeros(spec.obs_size + len(spec.angles)))
    critics = actor_critic.init_critics(design.critic, spec, key_critics, design.config.critics)
    copies = jax.tree.map(jnp.copy, (actor, critics))
    states = (design.optimiser.init(params) for params in (actor, critics))
    return State(actor, critics, *copies, *states, updates=jnp.zeros((), jnp.int32))


def _before_tanh(design: _Design, actor: PyTree, obs: Array) -> Array:
    return jnp.asarray(design.actor.apply(actor, encode(obs, design.spec.angles)))


def _policy(design: _Design, actor: PyTree, noise: Array, obs: Array) -> tuple[Array, Array]:
    del noise
    return squashed.from_unit(jnp.tanh(_before_tanh(design, actor, obs)), design.spec.box), jnp.zeros(())


def _perturbed(design: _Design, actor: PyTree, obs: Array, noise: Array) -> Array:
    unit = jnp.tanh(_before_tanh(design, actor, obs)) + noise
    return squashed.from_unit(jnp.clip(unit, -1.0, 1.0), design.spec.box)


def _act(design: _Design, state: State, key: Key, obs: Array, *, explore: bool) -> Array:
    size = design.spec.box.size
    noise = design.config.exploration * jax.random.normal(key, (size,)) if explore else jnp.zeros(size)
    return _perturbed(design, state.actor, obs, noise)


def _bootstrap(design: _Design, state: State, noise: Array, obs: Array) -> Bootstrap:
    limit = design.config.target_noise_clip
    noise = jnp.clip(design.config.target_noise * noise, -limit, limit)
    action = _perturbed(design, state.target_actor, obs, noise)
    values = actor_critic.critic_values(design.critic, design.spec, state.targets, obs, action)
    return Bootstrap(action, values, jnp.zeros(()))


def _update(learner: ActorCritic, state: State, key: Key, batch: Transition) -> tuple[State, Metrics]:
    key_target, key_learn = jax.random.split(key)
    examples = actor_critic.one_step_examples(learner, state, key_target, batch)
    return learner.learn(state, key_learn, batch.obs, examples)


def _policy_loss(design: _Design, state: State, actor: PyTree, key: Key, obs: Array) -> PolicyLoss:
    """TD3's own objective: the first critic's value of the policy's action."""
    del key

    def loss(obs: Array) -> Array:
        x = _before_tanh(design, actor, obs)
        action = squashed.from_unit(jnp.tanh(x), design.spec.box)
        value = actor_critic.critic_values(design.critic, design.spec, state.critics, obs, action)[0]
        return design.config.saturation_penalty * jnp.sum(jnp.square(x)) - value

    return PolicyLoss(jnp.mean(jax.vmap(loss)(obs)), jnp.zeros(obs.shape[:1]))


def _learn(
    design: _Design, state: State, key: Key, obs: Array, examples: Examples, *, objective: Objective | None = None
) -> tuple[State, Metrics]:
    config, optimiser = design.config, design.optimiser
    values = partial(actor_critic.critic_values, design.critic, design.spec)
    critics, critic_optimiser, metrics = actor_critic.critic_step(
        values, optimiser, state.critics, state.critic_optimiser, examples
    )
    state = state._replace(critics=critics, critic_optimiser=critic_optimiser, updates=state.updates + 1)
    policy_loss = objective or partial(_policy_loss, design)
    loss, gradient = jax.value_and_grad(lambda actor: policy_loss(state, actor, key, obs).loss)(state.actor)
    actor, actor_optimiser = actor_critic.descend(optimiser, gradient, state.actor, state.actor_optimiser)
    moved = state._replace(
        actor=actor,
        actor_optimiser=actor_optimiser,
        target_actor=actor_critic.track(state.target_actor, actor, config.target_rate),
        targets=actor_critic.track(state.targets, critics, config.target_rate),
    )
    state = moved if config.delay == 1 else select(state.updates % config.delay == 0, moved, state)
    return state, metrics | {"actor_loss": loss}
