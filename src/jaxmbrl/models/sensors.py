"""Sensors: how observations enter a latent model, and how it learns to tell what will be seen.

Vectors pass through symlog (their angles as sine and cosine), images through convolutions. Either is reconstructed by
a Gaussian of variance 1, whose loss is summed over the observation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmbrl.config import ConfigError
from jaxmbrl.models import angles
from jaxmbrl.models.convolution import Decoder, Encoder, scaled
from jaxmbrl.models.heads import symexp, symlog
from jaxmbrl.models.networks import MLP
from jaxmbrl.types import Array, Key, PyTree, Spec


class Sensor(NamedTuple):
    """An encoder and a decoder.

    Attributes:
        size: length of an embedding (I).
        init: ``(key, features [F]) -> params``; ``features`` shows what the decoder reads.
        embed: ``(params, obs) -> [I]``.
        seen: ``(obs) -> array``, what is told of an observation: angles as sine and cosine, pixels within [0, 1].
        reconstruct: ``(params, features) -> array``, the same as it is expected.
        loss: ``(params, features, obs) -> []``, negative log-likelihood without its constant.
    """

    size: int
    init: Callable[[Key, Array], PyTree]
    embed: Callable[[PyTree, Any], Array]
    seen: Callable[[Any], Array]
    reconstruct: Callable[[PyTree, Array], Array]
    loss: Callable[[PyTree, Array, Any], Array]


def make(
    spec: Spec, layer: Callable[..., MLP], *, layers: tuple[int, ...], embedding: int, **convolution: Any
) -> Sensor:
    """The sensor of an environment's observations.

    Args:
        spec: of an environment.
        layer: ``(hidden, outputs) -> MLP``.
        layers: hidden widths of a vector's encoder and decoder.
        embedding: length of a vector's embedding.
        **convolution: options of an image's encoder and decoder.

    Raises:
        ConfigError: for observations that are neither vectors nor images of a side that `convolution` knows.
    """
    obs = spec.observation
    if isinstance(obs, jax.ShapeDtypeStruct) and len(obs.shape) == 1:
        return _vector(spec, layer(layers, embedding), layer(layers, obs.shape[0] + len(spec.angles)))
    if spec.is_image:
        return _image(obs.shape, Encoder(**convolution), Decoder(obs.shape, **convolution))
    raise ConfigError(f"{spec.name}: observation is {obs}, needs one vector or one image (uint8)")


def _vector(spec: Spec, encoder: MLP, decoder: MLP) -> Sensor:
    seen = partial(angles.encode, angles=spec.angles)

    def init(key: Key, features: Array) -> PyTree:
        key_encoder, key_decoder = jax.random.split(key)
        inputs = jnp.zeros(decoder.outputs)
        return {"encoder": encoder.init(key_encoder, inputs), "decoder": decoder.init(key_decoder, features)}

    def embed(params: PyTree, obs: Array) -> Array:
        return jnp.asarray(encoder.apply(params["encoder"], symlog(seen(obs))))

    def predict(params: PyTree, features: Array) -> Array:
        return jnp.asarray(decoder.apply(params["decoder"], features))

    def loss(params: PyTree, features: Array, obs: Array) -> Array:
        return 0.5 * jnp.sum(jnp.square(predict(params, features) - symlog(seen(obs))))

    return Sensor(encoder.outputs, init, embed, seen, lambda params, features: symexp(predict(params, features)), loss)


def _image(shape: tuple[int, ...], encoder: Encoder, decoder: Decoder) -> Sensor:
    size = jax.eval_shape(encoder.init_with_output, jax.random.key(0), jnp.zeros(shape))[0].shape[0]

    def init(key: Key, features: Array) -> PyTree:
        key_encoder, key_decoder = jax.random.split(key)
        image = jnp.zeros(shape)
        return {"encoder": encoder.init(key_encoder, image), "decoder": decoder.init(key_decoder, features)}

    def embed(params: PyTree, obs: Array) -> Array:
        return jnp.asarray(encoder.apply(params["encoder"], scaled(obs)))

    def predict(params: PyTree, features: Array) -> Array:
        return jnp.asarray(decoder.apply(params["decoder"], features))

    def loss(params: PyTree, features: Array, obs: Array) -> Array:
        return 0.5 * jnp.sum(jnp.square(predict(params, features) - scaled(obs)))

    return Sensor(
        size, init, embed, lambda obs: scaled(obs) + 0.5, lambda params, features: predict(params, features) + 0.5, loss
    )
