"""Whether a function still computes what it did when a program was compiled with it."""

import inspect
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import jax
from jax.tree_util import Partial

from snnjax.surrogate import _Custom

_LIBRARIES = ("snnjax", "jax", "numpy")


def is_fixed(function: Callable | None) -> bool:
    """Whether nothing that it reads can have changed since.

    So of what is of a library, and of a function that reads its arguments, other such
    functions, modules and classes. All else may have changed: what a function closes
    over, a global number, the object that a method is of.
    """
    if function is None:
        return True
    if isinstance(function, _Custom):
        return is_fixed(function.relaxation)
    return _is_of_library(function) or _reads_nothing(function, ())


def is_fixed_or_traced(function: Callable | None) -> bool:
    """The same of what goes into a program as a pytree: what may change is traced."""
    if isinstance(function, Partial):
        return is_fixed(function.func)
    return not jax.tree_util.all_leaves([function]) or is_fixed(function)


def _is_of_library(function: Any) -> bool:
    """Whether it is found under its name in a module of one."""
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", "")
    there = getattr(sys.modules.get(module), name, None)
    return module.partition(".")[0] in _LIBRARIES and there is function


def _reads_nothing(function: Any, above: tuple) -> bool:
    if not isinstance(function, FunctionType) or hasattr(function, "__wrapped__"):
        return False
    defaults = *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()
    plain = all(isinstance(x, (int, float, str, type(None))) for x in defaults)
    inner = any(isinstance(x, CodeType) for x in function.__code__.co_consts)
    if function.__closure__ or not plain or inner:
        return False
    fixed = (ModuleType, type, BuiltinFunctionType)
    return all(
        isinstance(x, fixed)
        or _is_of_library(x)
        or x in above
        or _reads_nothing(x, (*above, function))
        for x in inspect.getclosurevars(function).globals.values()
    )
