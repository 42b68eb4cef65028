"""FLOPs of a program, counted in its jaxpr.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs. What no output
needs is left out first, as XLA leaves it out.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Jaxpr
from jax.interpreters import partial_eval


def matrix_flops(jaxpr: Jaxpr) -> int:
    """FLOPs of the matrix products and convolutions of a program, those of loops times their trips.

    Raises:
      ValueError: at a loop whose trips are not known; a branch counts as its dearest side.
    """
    total = 0
    equations: Any = jaxpr.eqns
    for equation in equations:
        name, sizes = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = sizes["dimension_numbers"]
            left = equation.invars[0].aval.shape
            inner = math.prod(left[axis] for axis in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * inner
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[sizes["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
        elif name == "cond":
            total += max(matrix_flops(branch.jaxpr) for branch in sizes["branches"])
        else:
            trips = sizes["length"] if name == "scan" else 1
            inner = sum(matrix_flops(program) for program in _inside(sizes))
            if name == "while" and inner:
                raise ValueError("a while loop holds matrix products: its trips are not in the program")
            total += trips * inner
    return total


def _inside(sizes: dict[str, Any]) -> Iterator[Any]:
    for value in sizes.values():
        for program in value if isinstance(value, tuple | list) else (value,):
            program = getattr(program, "jaxpr", program)
            if hasattr(program, "eqns"):
                yield program


def program_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of a function of abstract arrays, without what none of its outputs needs."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return matrix_flops(needed)
