r"""A variational autoencoder of observations: vectors by multilayer perceptrons, images by convolutions.

:math:`p(x, z) = N(z; 0, I) \, N(x; g(z), \sigma^2 I)` with the posterior :math:`q(z | x) = N(z; \mu(x), diag(s(x)^2))`.

Scale of the loss: :math:`|x - g(z)|^2 / (2 \sigma^2) + KL(q | p)`, summed over entries and latents: the negative of the
bound on the log-likelihood without its constant. With :math:`\sigma = 1 / \sqrt 2` it is the sum of squares plus KL of
World Models' released code. The KL counts only where it exceeds ``kl_tolerance`` a latent, as there.

Source: Kingma and Welling 2014, arXiv:1312.6114; Ha and Schmidhuber 2018, arXiv:1803.10122, App. A.1.

Differs from World Models: pixels lie within [-0.5, 0.5], and the decoder's last layer is linear rather than a sigmoid.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmbrl.config import configurable, option
from jaxmbrl.models.angles import encode as encode_angles
from jaxmbrl.models.convolution import Decoder, Encoder, check_size, scaled
from jaxmbrl.models.networks import ACTIVATIONS, MLP, PRECISIONS
from jaxmbrl.types import Array, Key, Metrics, PyTree, Spec

MIN_STD = 1e-6  # of an entry that never varied: dividing by it must not blow up


@configurable
class Config:
    """Sizes and the loss; the defaults are World Models' for images (Ha and Schmidhuber 2018, App. A.1)."""

    latent: int = option(32, "size of the latent vector (Z)", low=1)
    depth: int = option(32, "for images: channels of the first convolution", low=1)
    hidden: tuple[int, ...] = option((200, 200), "for vectors: widths of the hidden layers", low=1)
    activation: str = option("relu", "activation function", choices=tuple(ACTIVATIONS))
    std: float = option(0.5**0.5, "standard deviation of the decoder's Gaussian, in its normalised units", above=0.0)
    kl_tolerance: float = option(0.5, "KL a latent that costs nothing, in nats", low=0.0)
    precision: str = option("float32", "of the matrix products", choices=PRECISIONS)


class Params(NamedTuple):
    """Parameters.

    Attributes:
        encoder: of the network that gives the posterior.
        decoder: of the network that gives the mean of x.
        mean: [X], of vector observations, in the normaliser (not learned); [] for images.
        std: like ``mean``.
    """

    encoder: PyTree
    decoder: PyTree
    mean: Array
    std: Array


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents: mean [Z], std [Z]."""

    mean: Array
    std: Array


class VAE(NamedTuple):
    """A variational autoencoder bound to an environment's observations.

    Attributes:
        init: ``(key) -> Params``.
        calibrate: ``(params, obs [B, ...], weight [B]) -> params``, with the normaliser fitted to weighted vectors.
        prepare: ``(params, obs) -> x``, what is encoded and decoded: a scaled image [H, W, C], or a normalised vector
            [X] with angles as sines and cosines.
        encode: ``(params, obs) -> Posterior``.
        decode: ``(params, z [Z]) -> x``, the mean.
        seen: ``(obs) -> array``, what is told of an observation: angles as sines and cosines, pixels within [0, 1].
        reconstruct: ``(params, z [Z]) -> array``, the same as it is decoded.
        bound: ``(params, key, obs) -> (log_likelihood [], kl [])`` whose difference, averaged over keys, never exceeds
            log p(x).
        loss: ``(params, key, obs) -> (loss [], metrics)``, of ONE observation.
    """

    init: Callable[[Key], Params]
    calibrate: Callable[[Params, Array, Array], Params]
    prepare: Callable[[Params, Array], Array]
    encode: Callable[[Params, Array], Posterior]
    decode: Callable[[Params, Array], Array]
    seen: Callable[[Array], Array]
    reconstruct: Callable[[Params, Array], Array]
    bound: Callable[[Params, Key, Array], tuple[Array, Array]]
    loss: Callable[[Params, Key, Array], tuple[Array, Metrics]]


class _ImageEncoder(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, image: Array) -> Array:
        features = Encoder(self.config.depth, self.config.activation, self.config.precision)(image)
        return MLP((), 2 * self.config.latent, precision=self.config.precision)(features)


class _Design(NamedTuple):
    """The static choices that the functions below are bound to; ``shape`` is that of x."""

    config: Config
    angles: tuple[int, ...]
    shape: tuple[int, ...]
    encoder: nn.Module
    decoder: nn.Module

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3


def make(spec: Spec, config: Config | None = None) -> VAE:
    """Bind an autoencoder to observations that are vectors [O], or uint8 images [H, W, C] of 32 x 32 or 64 x 64.

    Raises:
        ConfigError: images of another size.
        ValueError: observations that are neither.
    """
    config = config or Config()
    if spec.is_image:
        shape = spec.observation.shape
        check_size(shape)
        encoder, decoder = _ImageEncoder(config), Decoder(shape, config.depth, config.activation, config.precision)
    else:
        shape = (spec.obs_size + len(spec.angles),)
        encoder = MLP(config.hidden, 2 * config.latent, config.activation, config.precision)
        decoder = MLP(config.hidden, shape[0], config.activation, config.precision)
    design = _Design(config, spec.angles, shape, encoder, decoder)
    return VAE(
        init=partial(_init, design),
        calibrate=partial(_calibrate, design),
        prepare=partial(_prepare, design),
        encode=partial(_encode, design),
        decode=lambda params, latent: jnp.asarray(decoder.apply(params.decoder, latent)),
        seen=partial(_seen, design),
        reconstruct=partial(_reconstruct, design),
        bound=partial(_bound, design),
        loss=partial(_loss, design),
    )


def sample(key: Key, posterior: Posterior) -> Array:
    """A latent [Z] from the posterior, re-parametrised."""
    return posterior.mean + posterior.std * jax.random.normal(key, posterior.mean.shape)


def kl_from_standard(posterior: Posterior) -> Array:
    r""":math:`KL(q | N(0, I)) = \frac 1 2 \sum_i (\mu_i^2 + s_i^2 - 1 - \log s_i^2)`, []."""
    var = jnp.square(posterior.std)
    return 0.5 * jnp.sum(jnp.square(posterior.mean) + var - 1.0 - jnp.log(var))


def _init(design: _Design, key: Key) -> Params:
    key_encoder, key_decoder = jax.random.split(key)
    encoder = design.encoder.init(key_encoder, jnp.zeros(design.shape))
    decoder = design.decoder.init(key_decoder, jnp.zeros(design.config.latent))
    size = () if design.is_image else design.shape
    return Params(encoder, decoder, jnp.zeros(size), jnp.ones(size))


def _calibrate(design: _Design, params: Params, obs: Array, weight: Array) -> Params:
    if design.is_image:
        return params
    data = jax.vmap(partial(encode_angles, angles=design.angles))(obs)
    share = (weight / jnp.maximum(jnp.sum(weight), 1.0))[:, None]
    mean = jnp.sum(share * data, axis=0)
    std = jnp.sqrt(jnp.sum(share * jnp.square(data - mean), axis=0))
    return params._replace(mean=mean, std=jnp.where(std < MIN_STD, 1.0, std))


def _prepare(design: _Design, params: Params, obs: Array) -> Array:
    if design.is_image:
        return scaled(obs)
    frozen = jax.lax.stop_gradient((params.mean, params.std))
    return (encode_angles(obs, design.angles) - frozen[0]) / frozen[1]


def _seen(design: _Design, obs: Array) -> Array:
    return scaled(obs) + 0.5 if design.is_image else encode_angles(obs, design.angles)


def _reconstruct(design: _Design, params: Params, latent: Array) -> Array:
    x = jnp.asarray(design.decoder.apply(params.decoder, latent))
    return x + 0.5 if design.is_image else x * params.std + params.mean


def _encode(design: _Design, params: Params, obs: Array) -> Posterior:
    outputs = jnp.asarray(design.encoder.apply(params.encoder, _prepare(design, params, obs)))
    mean, log_var = jnp.split(outputs, 2)
    return Posterior(mean, jnp.exp(0.5 * log_var))


def _bound(design: _Design, params: Params, key: Key, obs: Array) -> tuple[Array, Array]:
    x, posterior = _prepare(design, params, obs), _encode(design, params, obs)
    error = x - jnp.asarray(design.decoder.apply(params.decoder, sample(key, posterior)))
    squares = jnp.sum(jnp.square(error / design.config.std))
    constant = x.size * (jnp.log(design.config.std) + 0.5 * math.log(2.0 * math.pi))
    return -0.5 * squares - constant, kl_from_standard(posterior)


def _loss(design: _Design, params: Params, key: Key, obs: Array) -> tuple[Array, Metrics]:
    config = design.config
    log_likelihood, kl = _bound(design, params, key, obs)
    constant = math.prod(design.shape) * (jnp.log(config.std) + 0.5 * math.log(2.0 * math.pi))
    loss = jnp.maximum(kl, config.kl_tolerance * config.latent) - log_likelihood - constant
    return loss, {"vae_loss": loss, "vae_kl": kl}
