r"""World Models' V and M: an autoencoder, and a recurrent network that predicts its latents by a mixture density.

    z_t ~ q(z | obs_t),   h_{t+1} = RNN(h_t, [z_t, a_t])
    p(z_{t+1} | h_{t+1}) = prod_i sum_k pi_ik N(mu_ik, s_ik^2),   reward and end of the episode from h_{t+1} as well

A belief is (z, h): what is seen now, and what was before. Both parts learn from one loss on sequences, but no gradient
of the recurrent part reaches the autoencoder: whether they learn together or in turn is the caller's choice.

Source: Ha and Schmidhuber 2018, arXiv:1803.10122, App. A.2, and its released code; Bishop 1994 (mixture densities).

Differs from the paper: a reward head (least squares, normalised) beside the one for the end of the episode, so that any
task can be dreamt; no flag of a restart among the inputs: the memory is cleared instead; windows of the replay start
with an empty memory wherever they begin.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmbrl import lapack
from jaxmbrl.config import configurable, option
from jaxmbrl.models import actions, rollouts, vae
from jaxmbrl.models.vae import VAE, Posterior
from jaxmbrl.types import (
    Array,
    Foreseen,
    Key,
    Metrics,
    Prediction,
    PyTree,
    Spec,
    TimeStep,
    Transition,
    WorldModel,
)


def orthogonal(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Flax's initialiser of what a cell makes of its memory, safe under `training.over_seeds`."""
    return lapack.in_turn(lambda key: nn.initializers.orthogonal()(key, shape, dtype))(key)


CELLS: dict[str, Callable[[int], nn.RNNCellBase]] = {
    "lstm": partial(nn.OptimizedLSTMCell, recurrent_kernel_init=orthogonal),
    "gru": partial(nn.GRUCell, recurrent_kernel_init=orthogonal),
}
MIN_STD = 1e-6  # of a reward that never varied


@configurable
class Config:
    """The car-racing settings of the paper; in Doom hidden was 512, latents 64, temperature 1.15 in training."""

    autoencoder: vae.Config = option(vae.Config(), "of observations (V)")
    cell: str = option("lstm", "recurrent cell", choices=tuple(CELLS))
    hidden: int = option(256, "units of the recurrent cell", low=1)
    mixtures: int = option(5, "Gaussians a latent (K)", low=1)
    temperature: float = option(1.0, "tau of imagined steps: above 1 the dream is less certain", above=0.0)


class Mixture(NamedTuple):
    """A mixture of K Gaussians for each latent: log_weights (normalised), mean, std, each [Z, K]."""

    log_weights: Array
    mean: Array
    std: Array


class Belief(NamedTuple):
    """The model's state.

    Attributes:
        latent: z [Z], of the observation now.
        memory: the recurrent cell's carry, before it has seen z.
    """

    latent: Array
    memory: PyTree


class Params(NamedTuple):
    """Parameters: of the autoencoder, the cell, the linear heads, and the reward's statistics [] (not learned)."""

    autoencoder: vae.Params
    cell: PyTree
    heads: PyTree
    reward_mean: Array
    reward_std: Array


class MDNRNN(NamedTuple):
    """The two parts bound to an environment.

    Attributes:
        world: the whole as a `WorldModel`; its loss takes sequences [B, T].
        autoencoder: V by itself.
        calibrate: ``(params, transitions [B], weight [B]) -> params``, with the normalisers fitted to weighted data.
        loss: ``(params, key, sequence [T]) -> (loss [], metrics)``, of the recurrent part, on ONE sequence whose
            ``obs`` and ``next_obs`` are `Posterior`s.
        memory: ``() -> memory``, at the start of an episode.
        advance: ``(params, belief, action) -> memory``, after the step.
        mixture: ``(params, memory) -> Mixture``, of the next latent.
    """

    world: WorldModel
    autoencoder: VAE
    calibrate: Callable[[Params, Transition, Array], Params]
    loss: Callable[[Params, Key, Transition], tuple[Array, Metrics]]
    memory: Callable[[], PyTree]
    advance: Callable[[Params, Belief, Array], PyTree]
    mixture: Callable[[Params, PyTree], Mixture]


class _Design(NamedTuple):
    """The static choices that the functions below are bound to."""

    spec: Spec
    config: Config
    autoencoder: VAE
    cell: nn.RNNCellBase
    heads: nn.Dense


class _Heads(NamedTuple):
    """What the heads say: mixture, reward [] in normalised units, logit [] of the episode going on."""

    mixture: Mixture
    reward: Array
    logit: Array


def make(spec: Spec, config: Config | None = None) -> MDNRNN:
    """Bind the model to an environment; actions may be continuous or discrete. Raises as `vae.make` does."""
    config = config or Config()
    cell = CELLS[config.cell](config.hidden)
    heads = nn.Dense(3 * config.mixtures * config.autoencoder.latent + 2)
    design = _Design(spec, config, vae.make(spec, config.autoencoder), cell, heads)
    world = WorldModel(
        init=partial(_init, design),
        loss=partial(_world_loss, design),
        start=partial(_start, design),
        observe=partial(_observe, design),
        step=partial(_step, design),
        features=lambda params, state: jnp.concatenate([state.latent, _output(state.memory)]),
    )
    return MDNRNN(
        world=world,
        autoencoder=design.autoencoder,
        calibrate=partial(_calibrate, design),
        loss=partial(_sequence_loss, design),
        memory=partial(_memory, design),
        advance=partial(_advance, design),
        mixture=lambda params, memory: _apply_heads(design, params, _output(memory)).mixture,
    )


def foresee(model: MDNRNN, params: Params, key: Key, timesteps: TimeStep, actions: Array, *, context: int) -> Foreseen:
    """Filter ``context`` time steps of an episode, and dream of the others; see `types.Agent.foresee`."""
    return rollouts.foresee(
        model.world,
        params,
        key,
        timesteps,
        actions,
        context=context,
        seen=jax.vmap(model.autoencoder.seen)(timesteps.obs),
        reconstruct=lambda belief: model.autoencoder.reconstruct(params.autoencoder, belief.latent),
    )


def log_prob(mixture: Mixture, value: Array) -> Array:
    r"""Log-density of each entry of ``value`` [Z]: :math:`\log \sum_k \pi_k N(v; \mu_k, s_k^2)`, [Z]."""
    each = jax.scipy.stats.norm.logpdf(value[:, None], mixture.mean, mixture.std)
    return jax.nn.logsumexp(mixture.log_weights + each, axis=-1)


def heated(mixture: Mixture, temperature: float | Array) -> Mixture:
    r"""At a temperature: weights :math:`\propto \pi^{1 / \tau}`, standard deviations times :math:`\sqrt\tau`."""
    log_weights = jax.nn.log_softmax(mixture.log_weights / temperature, axis=-1)
    return Mixture(log_weights, mixture.mean, mixture.std * jnp.sqrt(temperature))


def sample(key: Key, mixture: Mixture) -> Array:
    """A latent [Z], each entry from its own mixture."""
    key_choice, key_noise = jax.random.split(key)
    choice = jax.random.categorical(key_choice, mixture.log_weights)[:, None]
    mean, std = (jnp.take_along_axis(leaf, choice, axis=-1)[:, 0] for leaf in (mixture.mean, mixture.std))
    return mean + std * jax.random.normal(key_noise, mean.shape)


def _output(memory: PyTree) -> Array:
    """What a cell gives to others: h, which LSTMs carry beside their inner state."""
    return memory[1] if isinstance(memory, tuple) else memory


def _memory(design: _Design) -> PyTree:
    zeros = jnp.zeros(design.config.hidden)
    return (zeros, zeros) if design.config.cell == "lstm" else zeros


def _init(design: _Design, key: Key) -> Params:
    key_autoencoder, key_cell, key_heads = jax.random.split(key, 3)
    inputs = jnp.zeros(design.config.autoencoder.latent + actions.size(design.spec.action))
    cell = design.cell.init(key_cell, _memory(design), inputs)
    heads = design.heads.init(key_heads, jnp.zeros(design.config.hidden))
    return Params(design.autoencoder.init(key_autoencoder), cell, heads, jnp.zeros(()), jnp.ones(()))


def _calibrate(design: _Design, params: Params, transitions: Transition, weight: Array) -> Params:
    share = weight / jnp.maximum(jnp.sum(weight), 1.0)
    mean = jnp.sum(share * transitions.reward)
    std = jnp.sqrt(jnp.sum(share * jnp.square(transitions.reward - mean)))
    return params._replace(
        autoencoder=design.autoencoder.calibrate(params.autoencoder, transitions.obs, weight),
        reward_mean=mean,
        reward_std=jnp.where(std < MIN_STD, 1.0, std),
    )


def _advance(design: _Design, params: Params, belief: Belief, action: Array) -> PyTree:
    inputs = jnp.concatenate([belief.latent, actions.encode(action, design.spec.action)])
    return design.cell.apply(params.cell, belief.memory, inputs)[0]


def _apply_heads(design: _Design, params: Params, hidden: Array) -> _Heads:
    outputs = jnp.asarray(design.heads.apply(params.heads, hidden))
    shape = (3, design.config.autoencoder.latent, design.config.mixtures)
    logits, mean, log_std = outputs[:-2].reshape(shape)
    return _Heads(Mixture(jax.nn.log_softmax(logits, axis=-1), mean, jnp.exp(log_std)), outputs[-2], outputs[-1])


def _start(design: _Design, params: Params, key: Key, timestep: TimeStep) -> Belief:
    return Belief(vae.sample(key, design.autoencoder.encode(params.autoencoder, timestep.obs)), _memory(design))


def _observe(design: _Design, params: Params, key: Key, state: Belief, action: Array, timestep: TimeStep) -> Belief:
    return _start(design, params, key, timestep)._replace(memory=_advance(design, params, state, action))


def _step(design: _Design, params: Params, key: Key, state: Belief, action: Array) -> tuple[Belief, Prediction]:
    memory = _advance(design, params, state, action)
    heads = _apply_heads(design, params, _output(memory))
    latent = sample(key, heated(heads.mixture, design.config.temperature))
    reward = heads.reward * params.reward_std + params.reward_mean
    return Belief(latent, memory), Prediction(reward, jax.nn.sigmoid(heads.logit))


def _sequence_loss(design: _Design, params: Params, key: Key, sequence: Transition) -> tuple[Array, Metrics]:
    """Negative log-likelihood a latent, squared error of the reward, cross-entropy of the end; means over time."""
    key_latent, key_target = jax.random.split(key)
    latents, targets = vae.sample(key_latent, sequence.obs), vae.sample(key_target, sequence.next_obs)
    ended = sequence.terminated | sequence.truncated
    begins = jnp.concatenate([jnp.ones(1, bool), ended[:-1]])

    def step(memory: PyTree, inputs: tuple[Array, Array, Array]) -> tuple[PyTree, Array]:
        latent, action, begin = inputs
        memory = jax.tree.map(partial(jnp.where, begin), _memory(design), memory)
        memory = _advance(design, params, Belief(latent, memory), action)
        return memory, _output(memory)

    _, hidden = jax.lax.scan(step, _memory(design), (latents, sequence.action, begins))
    heads = jax.vmap(partial(_apply_heads, design, params))(hidden)
    latent_loss = -jnp.mean(jax.vmap(log_prob)(heads.mixture, targets))
    mean, std = jax.lax.stop_gradient((params.reward_mean, params.reward_std))
    reward_loss = 0.5 * jnp.mean(jnp.square(heads.reward - (sequence.reward - mean) / std))
    end_loss = jnp.mean(optax.sigmoid_binary_cross_entropy(heads.logit, sequence.discount))
    metrics = {"latent_loss": latent_loss, "reward_loss": reward_loss, "end_loss": end_loss}
    return latent_loss + reward_loss + end_loss, metrics


def _world_loss(design: _Design, params: Params, key: Key, batch: Transition) -> tuple[Array, Metrics]:
    """Of sequences [B, T] of observations: the autoencoder's loss and the recurrent part's."""
    key_autoencoder, key_recurrent = jax.random.split(key)
    keys = jax.random.split(key_autoencoder, batch.reward.shape)
    _, vae_metrics = jax.vmap(jax.vmap(partial(design.autoencoder.loss, params.autoencoder)))(keys, batch.obs)

    def encode(obs: PyTree) -> Posterior:
        return jax.lax.stop_gradient(jax.vmap(jax.vmap(partial(design.autoencoder.encode, params.autoencoder)))(obs))

    latents = batch._replace(obs=encode(batch.obs), next_obs=encode(batch.next_obs))
    keys = jax.random.split(key_recurrent, len(batch.reward))
    loss, metrics = jax.vmap(partial(_sequence_loss, design, params))(keys, latents)
    metrics = jax.tree.map(jnp.mean, metrics | vae_metrics)
    return jnp.mean(loss) + metrics["vae_loss"], metrics
