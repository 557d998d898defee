"""How much arithmetic a program is, from its jaxpr: XLA's own count takes the body of a loop once.

One multiplication and one addition are two operations, any other elementwise function is one.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

# Primitives that move data and compute nothing.
MOVES = frozenset(
    {
        "bitcast_convert_type",
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "copy_p",
        "device_put",
        "dynamic_slice",
        "dynamic_update_slice",
        "expand_dims",
        "gather",
        "iota",
        "optimization_barrier",
        "pad",
        "pvary",
        "rev",
        "reshape",
        "scatter",
        "select_n",
        "slice",
        "split",
        "squeeze",
        "stop_gradient",
        "transpose",
    }
)


class Count(NamedTuple):
    """Arithmetic of a program.

    Attributes:
        flops: floating-point operations.
        at_least: some loop runs as often as its data say; its body is counted once.
    """

    flops: float
    at_least: bool


def count(jaxpr: Any) -> Count:
    """The arithmetic of a ``jaxpr``, such as ``jax.jit(function).trace(*arguments).jaxpr``.

    >>> import jax.numpy as jnp
    >>> count(jax.make_jaxpr(lambda a, b: a @ b)(jnp.ones((2, 3)), jnp.ones((3, 4))))
    Count(flops=48.0, at_least=False)
    """
    total, at_least = 0.0, False
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = [count(part) for part in _parts(equation.params)]
        name = equation.primitive.name
        at_least = at_least or name == "while" or any(part.at_least for part in inner)
        if name == "cond":
            total += max(part.flops for part in inner)
        elif inner:
            total += _times(name, equation.params) * sum(part.flops for part in inner)
        else:
            total += _arithmetic(name, equation)
    return Count(total, at_least)


def _times(name: str, params: dict[str, Any]) -> int:
    """How often the inside of a primitive runs."""
    if name == "scan":
        return params["length"]
    return params["mesh"].size if name == "shard_map" else 1


def _parts(params: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    """Programs among a primitive's parameters."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                yield part


def _arithmetic(name: str, equation: Any) -> float:
    """Of a single primitive."""
    out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2.0 * out * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        return 2.0 * out * math.prod(kernel) / kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    if name in MOVES or not equation.outvars or not _is_float(equation.outvars[0].aval):
        return 0.0
    if name.startswith(("reduce_", "cum", "arg")):
        return float(math.prod(equation.invars[0].aval.shape))
    return float(out)


def _is_float(aval: Any) -> bool:
    return jax.dtypes.issubdtype(aval.dtype, jax.numpy.floating)
