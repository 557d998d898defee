r"""The recurrent state-space model (Hafner et al. 2019, PlaNet, arXiv:1811.04551; Dreamer v1 to v3).

    deterministic path:  h_t = GRU(h_{t-1}, [z_{t-1}, a_{t-1}])
    prior:               z_t ~ p(z | h_t)             imagination: what will probably be seen
    posterior:           z_t ~ q(z | h_t, obs_t)      filtering: what was seen
    heads on (h_t, z_t): observation, reward, and whether the episode goes on

The loss bounds the negative evidence: reconstruction, reward and continuation, and KL(q || p), which is split into a
*dynamics* part that moves the prior and a *representation* part that moves the posterior, each left alone below
``free_nats``. Equal weights give the plain KL's gradient (PlaNet, Dreamer v1), unequal ones balance it (v2, v3).

Differs from the papers: free nats are free in each frame (as in PlaNet and v3; v1 compared the mean over a batch); a
window's frames hold the true last observation of an episode (see `models.frames`), and the reward of a first frame,
which nobody earned, is not learned; recurrent states of replayed windows start from zero (v3 stores them); the
path is one dense GRU (v3's has blocks).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import ConfigError, configurable, option
from jaxmbrl.models import actions, heads, latents, networks, sensors
from jaxmbrl.models.frames import Frames, frames
from jaxmbrl.models.heads import Head
from jaxmbrl.models.latent_model import Filtered, LatentModel
from jaxmbrl.models.latents import Latent
from jaxmbrl.models.networks import ACTIVATIONS, GRU, MLP
from jaxmbrl.types import Array, Key, Metrics, Prediction, PyTree, Spec, TimeStep, Transition, WorldModel


@configurable
class Config:
    """Sizes and losses; the defaults are PlaNet's (App. A, and heads as in the released code)."""

    deter: int = option(200, "units of the deterministic path (D)", low=1)
    stoch: int = option(30, "stochastic variables: Gaussian ones, or groups of classes", low=1)
    classes: int = option(0, "classes of each stochastic variable; 0 for Gaussian variables", low=0)
    hidden: int = option(200, "units of the hidden layers within the recurrent model", low=1)
    layers: tuple[int, ...] = option((300, 300, 300), "hidden layers of heads, and of the sensors of vectors", low=1)
    embedding: int = option(200, "size of an encoded observation, for vectors and grids", low=1)
    depth: int = option(32, "channels of the first convolution, for images and grids", low=1)
    activation: str = option("relu", "activation function", choices=tuple(ACTIVATIONS))
    norm: bool = option(False, "normalise the units of each layer (v2 and v3)")
    min_std: float = option(0.1, "least standard deviation of a Gaussian variable", above=0.0)
    unimix: float = option(
        0.01, "share of chance in the probability of each class, where there are", low=0.0, below=1.0
    )
    free_nats: float = option(3.0, "divergence a frame that costs nothing, nats", low=0.0)
    dynamics_scale: float = option(1.0, "weight of the divergence that moves the prior", low=0.0)
    representation_scale: float = option(1.0, "weight of the divergence that moves the posterior", low=0.0)
    observation_scale: float = option(1.0, "weight of the reconstruction's loss", low=0.0)
    reward_scale: float = option(10.0, "weight of the reward's loss", low=0.0)
    reward_head: str = option("normal", "how rewards are learned", choices=tuple(heads.HEADS))
    overshooting: int = option(0, "steps of latent overshooting beyond one; 0 for none", low=0)

    def check(self) -> None:
        """A variable of one class would say nothing."""
        if self.classes == 1:
            raise ConfigError("classes: got 1, needs 0 (Gaussian variables) or at least 2")


class State(NamedTuple):
    """A belief: the deterministic path h [D], and a sample z [Z] of the stochastic one."""

    deter: Array
    stoch: Array


class _Design(NamedTuple):
    """What the functions below are bound to: static choices and networks (flax modules)."""

    spec: Spec
    config: Config
    latent: Latent
    sensor: sensors.Sensor
    head: Head
    modules: dict[str, Any]

    def apply(self, params: PyTree, name: str, *inputs: Array) -> Array:
        return jnp.asarray(self.modules[name].apply(params[name], *inputs))


def make(spec: Spec, config: Config | None = None) -> LatentModel:
    """Bind the model to an environment's spec. Raises ConfigError for observations that no sensor reads."""
    config = config or Config()
    if config.classes:
        latent = latents.categorical(config.stoch, config.classes, unimix=config.unimix)
    else:
        latent = latents.gaussian(config.stoch, min_std=config.min_std)
    head = heads.HEADS[config.reward_head]()
    layer = partial(MLP, activation=config.activation, norm=config.norm)
    modules = {
        "inputs": MLP((), config.hidden),
        "path": GRU(config.deter, norm=config.norm),
        "prior": layer((config.hidden,), latent.num_outputs),
        "posterior": layer((config.hidden,), latent.num_outputs),
        "reward": layer(config.layers, head.num_outputs, silent=True),
        "discount": layer(config.layers, 1),
    }
    sensor = sensors.make(
        spec, layer, layers=config.layers, embedding=config.embedding, depth=config.depth, activation=config.activation
    )
    design = _Design(spec, config, latent, sensor, head, modules)
    initial, perceive = partial(_initial, design), partial(_perceive, design)
    world = WorldModel(
        init=partial(_init, design),
        loss=partial(_loss, design),
        start=lambda params, key, timestep: perceive(params, key, initial(), _arrival(spec, timestep)),
        observe=lambda params, key, state, action, timestep: perceive(
            params, key, state, _arrival(spec, timestep)._replace(action=action, first=jnp.zeros((), bool))
        ),
        step=partial(_step, design),
        features=lambda params, state: features(state),
    )
    return LatentModel(
        world=world,
        initial=initial,
        perceive=perceive,
        filter=partial(_filter, design),
        evidence=partial(_evidence, design),
        seen=sensor.seen,
        reconstruct=lambda params, state: sensor.reconstruct(params["sensor"], features(state)),
    )


def features(state: State) -> Array:
    """What heads and policies read: [D + Z]."""
    return jnp.concatenate([state.deter, state.stoch])


def _arrival(spec: Spec, timestep: TimeStep) -> Frames:
    """The first frame of an episode."""
    return Frames(timestep.obs, actions.none(spec.action), timestep.reward, jnp.ones(()), jnp.ones((), bool))


def _initial(design: _Design) -> State:
    return State(jnp.zeros(design.config.deter), jnp.zeros(design.latent.size))


def _init(design: _Design, key: Key) -> PyTree:
    key_sensor, key_networks = jax.random.split(key)
    deter, stoch = _initial(design)
    inputs = {
        "inputs": (jnp.zeros(design.latent.size + actions.size(design.spec.action)),),
        "path": (deter, jnp.zeros(design.config.hidden)),
        "prior": (deter,),
        "posterior": (jnp.zeros(design.config.deter + design.sensor.size),),
        "reward": (features(State(deter, stoch)),),
        "discount": (features(State(deter, stoch)),),
    }
    params = {"sensor": design.sensor.init(key_sensor, features(State(deter, stoch)))}
    for name, key_network in zip(inputs, jax.random.split(key_networks, len(inputs)), strict=True):
        params[name] = design.modules[name].init(key_network, *inputs[name])
    return params


def _advance(design: _Design, params: PyTree, state: State, action: Array) -> Array:
    """The deterministic path's next h [D], after an encoded action."""
    inputs = design.apply(params, "inputs", jnp.concatenate([state.stoch, action]))
    return design.apply(params, "path", state.deter, networks.ACTIVATIONS[design.config.activation](inputs))


def _step(design: _Design, params: PyTree, key: Key, state: State, action: Array) -> tuple[State, Prediction]:
    deter = _advance(design, params, state, actions.encode(action, design.spec.action))
    state = State(deter, design.latent.sample(key, design.apply(params, "prior", deter)))
    reward = design.head.mean(design.apply(params, "reward", features(state)))
    return state, Prediction(reward, jax.nn.sigmoid(design.apply(params, "discount", features(state))[0]))


def _posterior(
    design: _Design, params: PyTree, key: Key, state: State, frame: Frames, embedding: Array
) -> tuple[State, Array]:
    """Filter by one frame; also the posterior's raw outputs."""
    state = jax.tree.map(lambda leaf: jnp.where(frame.first, 0.0, leaf), state)
    action = jnp.where(frame.first, 0.0, actions.encode(frame.action, design.spec.action))
    deter = _advance(design, params, state, action)
    outputs = design.apply(params, "posterior", jnp.concatenate([deter, embedding]))
    return State(deter, design.latent.sample(key, outputs)), outputs


def _perceive(design: _Design, params: PyTree, key: Key, state: State, frame: Frames) -> State:
    return _posterior(design, params, key, state, frame, design.sensor.embed(params["sensor"], frame.obs))[0]


def _filter(design: _Design, params: PyTree, key: Key, sequence: Frames) -> Filtered:
    embeddings = jax.vmap(partial(design.sensor.embed, params["sensor"]))(sequence.obs)

    def step(state: State, inputs: tuple[Key, Frames, Array]) -> tuple[State, tuple[State, Array]]:
        key, frame, embedding = inputs
        state, outputs = _posterior(design, params, key, state, frame, embedding)
        return state, (state, outputs)

    keys = jax.random.split(key, len(embeddings))
    inputs = (keys, sequence._replace(obs=()), embeddings)
    state, posterior = jax.lax.scan(step, _initial(design), inputs)[1]
    return Filtered(state, posterior, jax.vmap(partial(design.apply, params, "prior"))(state.deter))


def _evidence(design: _Design, params: PyTree, key: Key, sequence: Frames) -> tuple[Array, Metrics, State]:
    config = design.config
    key_filter, key_overshoot = jax.random.split(key)
    filtered = _filter(design, params, key_filter, sequence)
    seen = jax.vmap(features)(filtered.state)
    stop = jax.lax.stop_gradient
    kl = jax.vmap(design.latent.kl)

    def costing(divergence: Array) -> Array:
        return jnp.mean(jnp.maximum(divergence, config.free_nats))

    def reward_loss(feature: Array, frame: Frames) -> Array:
        loss = design.head.loss(design.apply(params, "reward", feature), frame.reward)
        return jnp.where(frame.first, 0.0, loss)

    def discount_loss(feature: Array, frame: Frames) -> Array:
        logit = design.apply(params, "discount", feature)[0]
        return optax.sigmoid_binary_cross_entropy(logit, frame.discount)

    parts = {
        "reconstruction": jnp.mean(jax.vmap(partial(design.sensor.loss, params["sensor"]))(seen, sequence.obs)),
        "reward": jnp.mean(jax.vmap(reward_loss)(seen, sequence)),
        "discount": jnp.mean(jax.vmap(discount_loss)(seen, sequence)),
        "dynamics": costing(kl(stop(filtered.posterior), filtered.prior)),
        "representation": costing(kl(filtered.posterior, stop(filtered.prior))),
    }
    scales = {
        "reconstruction": config.observation_scale,
        "reward": config.reward_scale,
        "dynamics": config.dynamics_scale,
        "representation": config.representation_scale,
    }
    if config.overshooting:
        parts["overshooting"] = jnp.mean(_overshoot(design, params, key_overshoot, sequence, filtered))
        scales["overshooting"] = config.dynamics_scale
    loss = sum((scales.get(name, 1.0) * part for name, part in parts.items()), jnp.zeros(()))
    metrics = {f"{name}_loss": part for name, part in parts.items()}
    metrics |= {"divergence": jnp.mean(kl(filtered.posterior, filtered.prior)), "model_loss": loss}
    return loss, metrics, filtered.state


def _overshoot(design: _Design, params: PyTree, key: Key, sequence: Frames, filtered: Filtered) -> Array:
    """What posteriors' divergence from priors several steps ahead costs, [T, steps] (PlaNet, Eq. 7).

    Below ``free_nats`` it moves nothing, as in the filter; it is 0 where an episode or the sequence ends in between.
    """
    length = len(sequence.reward)

    def ahead(key: Key, begin: Array) -> Array:
        state = jax.tree.map(lambda leaf: leaf[begin], filtered.state)

        def step(carry: tuple[State, Array], inputs: tuple[Key, Array]) -> tuple[tuple[State, Array], Array]:
            state, running = carry
            key, offset = inputs
            place = jnp.minimum(begin + offset, length - 1)
            running = running & ~sequence.first[place] & (begin + offset < length)
            deter = _advance(design, params, state, actions.encode(sequence.action[place], design.spec.action))
            prior = design.apply(params, "prior", deter)
            far = design.latent.kl(jax.lax.stop_gradient(filtered.posterior[place]), prior)
            cost = jnp.where(running, jnp.maximum(far, design.config.free_nats), 0.0)
            return (State(deter, design.latent.sample(key, prior)), running), cost

        steps = design.config.overshooting + 1
        inputs = (jax.random.split(key, steps), 1 + jnp.arange(steps))
        return jax.lax.scan(step, (state, jnp.ones((), bool)), inputs)[1][1:]  # one step ahead is the filter's own

    return jax.vmap(ahead)(jax.random.split(key, length), jnp.arange(length))


def _loss(design: _Design, params: PyTree, key: Key, batch: Transition) -> tuple[Array, Metrics]:
    keys = jax.random.split(key, len(batch.reward))
    losses, metrics, _ = jax.vmap(partial(_evidence, design, params))(keys, jax.vmap(frames)(batch))
    return jnp.mean(losses), jax.tree.map(jnp.mean, metrics)
