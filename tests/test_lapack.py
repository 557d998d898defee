"""Decompositions of LAPACK never meet a batch on a CPU: shared out among the threads of all devices, it would hang."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmbrl import envs, lapack
from jaxmbrl.models import mdn_rnn
from jaxmbrl.planners import cmaes

SEEDS = 3


def operands(function, *arrays):
    """Shapes of what LAPACK is called on where ``function`` is vmapped."""
    text = jax.jit(jax.vmap(function)).lower(*arrays).as_text()
    calls = re.findall(r"@lapack_\w+\(.*: \(tensor<([0-9x]+)xf32>", text)
    return [tuple(map(int, shape.split("x"))) for shape in calls]


def test_a_batch_is_taken_apart(key):
    matrices = jax.random.normal(key, (SEEDS, 8, 8))
    matrices += matrices.mT
    assert operands(jnp.linalg.eigh, matrices) == [(SEEDS, 8, 8)], "what is to be avoided"
    assert operands(cmaes.roots, matrices) == [(8, 8)]
    each = jax.jit(jax.vmap(lapack.in_turn(jnp.linalg.inv)))(matrices)
    np.testing.assert_allclose(each, np.linalg.inv(matrices), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cell", list(mdn_rnn.CELLS))
def test_recurrent_weights_are_orthogonal_one_seed_at_a_time(key, cell):
    hidden = 8
    init = mdn_rnn.make(envs.make("pendulum").spec, mdn_rnn.Config(cell=cell, hidden=hidden)).world.init
    keys = jax.random.split(key, SEEDS)
    assert {shape[:-2] for shape in operands(init, keys)} == {()}
    weights = [leaf for leaf in jax.tree.leaves(jax.vmap(init)(keys).cell) if leaf.shape[1:] == (hidden, hidden)]
    assert weights
    for weight in weights:
        np.testing.assert_allclose(weight @ weight.mT, np.tile(np.eye(hidden), (SEEDS, 1, 1)), atol=1e-5)
