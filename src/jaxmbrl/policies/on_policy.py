"""What learners from fresh trajectories share: the state, acting, a fitted value function, and advantages."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxmbrl import values
from jaxmbrl.models.networks import MLP
from jaxmbrl.policies import gaussian
from jaxmbrl.types import Array, Key, Learner, Metrics, PyTree, Spec, Transition


class Parts(Protocol):
    """The fields that the Config of a learner made here has."""

    @property
    def hidden(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def value_hidden(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def activation(self) -> str: ...  # noqa: D102
    @property
    def discount(self) -> Any: ...  # noqa: D102
    @property
    def lambda_(self) -> Any: ...  # noqa: D102
    @property
    def value_learning_rate(self) -> Any: ...  # noqa: D102
    @property
    def value_epochs(self) -> int: ...  # noqa: D102
    @property
    def value_batch_size(self) -> int: ...  # noqa: D102
    @property
    def init_log_std(self) -> Any: ...  # noqa: D102


class Critic(NamedTuple):
    """A value function: its network sees inputs [I] and gives (V - shift) / scale.

    Attributes:
        network: parameters.
        optimiser: Adam's state.
        shift: [], mean of the targets it was fitted to.
        scale: [], their standard deviation.
    """

    network: PyTree
    optimiser: PyTree
    shift: Array
    scale: Array


class State(NamedTuple):
    """What learning carries on.

    Attributes:
        policy: the parameters of the policy.
        optimiser: of the policy, () if it has none.
        critic: the value function.
        scale: statistics of the observations.
    """

    policy: gaussian.Params
    optimiser: PyTree
    critic: Critic
    scale: gaussian.Scale


class Examples(NamedTuple):
    """What a policy learns from, flat over the batch.

    Attributes:
        seen: [N, I], the networks' inputs.
        raw: [N, A], actions before squashing.
        advantage: [N], of mean 0 and std 1.
        old: distributions of the policy that acted, leaves [N, A].
    """

    seen: Array
    raw: Array
    advantage: Array
    old: gaussian.Gaussian


Improve = Callable[
    [MLP, gaussian.Params, PyTree, Key, Examples], tuple[gaussian.Params, PyTree, Metrics]
]  # of the policy


def make(spec: Spec, config: Parts, improve: Improve, optimiser: optax.GradientTransformation | None) -> Learner:
    """A learner from trajectories that its own policy gathered, whose policy improves by ``improve``.

    Args:
        spec: of an environment with vector observations and continuous actions.
        config: the learner's ``Config``.
        improve: ``(network, policy, optimiser_state, key, examples) -> (policy, optimiser_state, metrics)``.
        optimiser: the policy's, or None.
    """
    policy = MLP(config.hidden, spec.box.size, config.activation)
    value = MLP(config.value_hidden, 1, config.activation)
    adam = optax.adam(config.value_learning_rate)
    return Learner(
        partial(_init, spec, config, policy, value, adam, optimiser),
        partial(act, spec, policy),
        partial(_update, spec, config, policy, value, adam, improve),
    )


def _init(
    spec: Spec,
    config: Parts,
    policy: MLP,
    value: MLP,
    adam: optax.GradientTransformation,
    optimiser: optax.GradientTransformation | None,
    key: Key,
) -> State:
    key_policy, key_value = jax.random.split(key)
    actor = gaussian.init(policy, key_policy, spec, log_std=config.init_log_std)
    network = value.init(key_value, jnp.zeros(gaussian.input_size(spec)))
    critic = Critic(network, adam.init(network), jnp.zeros(()), jnp.ones(()))
    return State(actor, optimiser.init(actor) if optimiser else (), critic, gaussian.init_scale(spec))


def act(spec: Spec, policy: MLP, state: State, key: Key, obs: Array, *, explore: bool) -> Array:
    """An action [A] for an observation [O]: a sample, or without exploration the squashed mean."""
    seen = gaussian.inputs(state.scale, obs, spec.angles)
    chosen = gaussian.distribution(policy, state.policy, seen)
    return gaussian.squash(spec.box, gaussian.sample(chosen, key) if explore else chosen.mean)


def _update(
    spec: Spec,
    config: Parts,
    policy: MLP,
    value: MLP,
    adam: optax.GradientTransformation,
    improve: Improve,
    state: State,
    key: Key,
    batch: Transition,
) -> tuple[State, Metrics]:
    """Advantages by the value function as it is, then the policy, then the value function, then the statistics.

    As the statistics move, so does what the networks make of an observation: the policy that acts next is a little
    outside the trust region that its step kept to (where states shifted, 0.025 nats away where 0.009 were told).
    """
    key_policy, key_value = jax.random.split(key)
    see = jax.vmap(jax.vmap(partial(gaussian.inputs, state.scale, angles=spec.angles)))
    seen, seen_next = see(batch.obs), see(batch.next_obs)
    advantage, target = estimate(config, value, state.critic, seen, seen_next, batch)
    flat = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), (seen, batch.action, advantage, target))
    seen, action, advantage, target = flat
    advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
    raw = jax.vmap(partial(gaussian.unsquash, spec.box))(action)
    old = jax.vmap(partial(gaussian.distribution, policy, state.policy))(seen)
    examples = Examples(seen, raw, advantage, old)
    actor, optimiser, metrics = improve(policy, state.policy, state.optimiser, key_policy, examples)
    critic, value_loss = fit_critic(config, value, adam, state.critic, key_value, seen, target)
    scale = gaussian.update_scale(state.scale, batch.obs.reshape((-1, batch.obs.shape[-1])), spec.angles)
    metrics |= {"value_loss": value_loss, "policy_std": jnp.mean(jnp.exp(actor.log_std))}
    return State(actor, optimiser, critic, scale), metrics


def predict(value: MLP, critic: Critic, seen: Array) -> Array:
    """V at networks' inputs [..., I]."""
    return critic.shift + critic.scale * jnp.asarray(value.apply(critic.network, seen))[..., 0]


def estimate(
    config: Parts, value: MLP, critic: Critic, seen: Array, seen_next: Array, batch: Transition
) -> tuple[Array, Array]:
    """Advantages and lambda-returns [B, T]: a time limit bootstraps, a termination does not, neither is crossed."""
    value_t, value_tp1 = predict(value, critic, seen), predict(value, critic, seen_next)
    ended = batch.terminated | batch.truncated
    advantage = jax.vmap(partial(values.gae, lambda_=config.lambda_))(
        batch.reward, config.discount * batch.discount, value_t, value_tp1, ended
    )
    return advantage, advantage + value_t


def fit_critic(
    config: Parts,
    value: MLP,
    adam: optax.GradientTransformation,
    critic: Critic,
    key: Key,
    seen: Array,
    target: Array,
) -> tuple[Critic, Array]:
    """Regress on targets [N] at inputs [N, I], by minibatches; returns the mean loss of the last pass as well.

    The network's own targets have mean 0 and std 1, whatever the rewards' unit; the output layer is moved along with
    shift and scale, so that the function does not jump (van Hasselt et al. 2016, arXiv:1602.07714).
    """
    shift, scale = jnp.mean(target), jnp.std(target) + 1e-6
    network = _rescale(critic, value, shift, scale)
    unit = (target - shift) / scale
    batches = max(len(target) // config.value_batch_size, 1)
    size = len(target) // batches

    def step(carry: tuple[PyTree, PyTree], index: Array) -> tuple[tuple[PyTree, PyTree], Array]:
        network, optimiser = carry

        def loss(network: PyTree) -> Array:
            return jnp.mean(jnp.square(jnp.asarray(value.apply(network, seen[index]))[:, 0] - unit[index]))

        error, gradient = jax.value_and_grad(loss)(network)
        updates, optimiser = adam.update(gradient, optimiser)
        return (jax.tree.map(jnp.add, network, updates), optimiser), error

    index = minibatches(key, len(target), config.value_epochs, batches, size)
    (network, optimiser), errors = jax.lax.scan(step, (network, critic.optimiser), index)
    return Critic(network, optimiser, shift, scale), jnp.mean(errors[-batches:])


def minibatches(key: Key, num: int, epochs: int, batches: int, size: int) -> Array:
    """Indices [epochs * batches, size]: each epoch a permutation of ``num`` examples, cut into batches."""
    order = jax.vmap(lambda key: jax.random.permutation(key, num))(jax.random.split(key, epochs))
    return order[:, : batches * size].reshape((-1, size))


def _rescale(critic: Critic, value: MLP, shift: Array, scale: Array) -> PyTree:
    last = f"layer_{len(value.hidden)}"
    layers = dict(critic.network["params"])
    layers[last] = {
        "kernel": layers[last]["kernel"] * critic.scale / scale,
        "bias": (layers[last]["bias"] * critic.scale + critic.shift - shift) / scale,
    }
    return {"params": layers}
