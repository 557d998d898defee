"""Sensors: how observations enter a latent model, and how it learns to tell what will be seen.

Vectors pass through symlog (their angles as sine and cosine), images and grids through convolutions. Vectors and images
are reconstructed by a Gaussian of variance 1, a grid by the chance that each cell holds each kind of thing (Bernoulli);
their losses are summed over the observation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmbrl.config import ConfigError
from jaxmbrl.models import angles
from jaxmbrl.models.convolution import Decoder, Encoder, GridDecoder, GridEncoder, scaled
from jaxmbrl.models.heads import symexp, symlog
from jaxmbrl.models.networks import MLP
from jaxmbrl.types import Array, Key, PyTree, Spec


class Sensor(NamedTuple):
    """An encoder and a decoder.

    Attributes:
        size: length of an embedding (I).
        init: ``(key, features [F]) -> params``; ``features`` shows what the decoder reads.
        embed: ``(params, obs) -> [I]``.
        seen: ``(obs) -> array``, what is told of an observation: angles as sine and cosine, pixels and cells within
            [0, 1].
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
        embedding: length of a vector's or grid's embedding.
        **convolution: options of an image's or grid's encoder and decoder.

    Raises:
        ConfigError: for observations that are no vectors, no grids, and no images of a side that `convolution` knows.
    """
    obs = spec.observation
    if isinstance(obs, jax.ShapeDtypeStruct) and len(obs.shape) == 1:
        return _vector(spec, layer(layers, embedding), layer(layers, obs.shape[0] + len(spec.angles)))
    if spec.is_image:
        return _image(obs.shape, Encoder(**convolution), Decoder(obs.shape, **convolution))
    if spec.is_grid:
        return _grid(obs.shape, GridEncoder(embedding, **convolution), GridDecoder(obs.shape, embedding, **convolution))
    needs = "one vector, one image (uint8) or one grid (bool, 3 x 3 or more)"
    raise ConfigError(f"{spec.name}: observation is {obs}, needs {needs}")


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


def _grid(shape: tuple[int, ...], encoder: GridEncoder, decoder: GridDecoder) -> Sensor:
    def init(key: Key, features: Array) -> PyTree:
        key_encoder, key_decoder = jax.random.split(key)
        grid = jnp.zeros(shape)
        return {"encoder": encoder.init(key_encoder, grid), "decoder": decoder.init(key_decoder, features)}

    def seen(obs: Array) -> Array:
        return obs.astype(jnp.float32)

    def embed(params: PyTree, obs: Array) -> Array:
        return jnp.asarray(encoder.apply(params["encoder"], obs))

    def logits(params: PyTree, features: Array) -> Array:
        return jnp.asarray(decoder.apply(params["decoder"], features))

    def loss(params: PyTree, features: Array, obs: Array) -> Array:
        return jnp.sum(optax.sigmoid_binary_cross_entropy(logits(params, features), seen(obs)))

    return Sensor(
        encoder.width, init, embed, seen, lambda params, features: jax.nn.sigmoid(logits(params, features)), loss
    )
