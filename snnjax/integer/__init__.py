"""Integer twins: quantized networks in whole numbers, equal to the bit on any machine.

`from_model` makes an `IntegerNetwork` of a quantized network; it runs by JAX or by
numpy, and is saved to a file that `load`, or a program in another language, reads.
Loading and running by numpy need no JAX.
"""

from typing import TYPE_CHECKING, Any

from snnjax.integer.files import load as load
from snnjax.integer.network import IntegerNetwork as IntegerNetwork
from snnjax.integer.network import Layer as Layer
from snnjax.integer.network import Neurons as Neurons
from snnjax.integer.network import Operation as Operation
from snnjax.integer.network import Result as Result

if TYPE_CHECKING:
    from snnjax.integer.compare import count_differences as count_differences
    from snnjax.integer.convert import from_model as from_model

_NEED_JAX = {"from_model": "convert", "count_differences": "compare"}


def __getattr__(name: str) -> Any:
    """Import what needs JAX and Flax when it is asked for."""
    if name not in _NEED_JAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_NEED_JAX[name]}"), name)
