"""Build cases of bad input: a function, a good call, and what each argument cannot be.

A case is (name, call, argument, value): the call must raise an error that names the
argument and shows the value. Where the argument is None, the call must work.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

Case = tuple[str, Callable[[], Any], str | None, Any]

NAN, INF = np.nan, np.inf
OBJECTS, RAGGED = np.array([None]), [[1.0], [1.0, 2.0]]
INTEGERS, COMPLEX = np.ones((2, 3), np.int32), np.ones((2, 3), np.complex64)
# One value for each check that an argument passes. A function that has the check from
# elsewhere shows with these that it calls it; what else the check refuses
# (``OTHER_...``) is shown where the check is first used.
NO_ARRAY, OTHER_ARRAYS = ["text"], [None, OBJECTS, RAGGED]
NOT_FLOATING, OTHER_DTYPES = ["text", INTEGERS], [*OTHER_ARRAYS, COMPLEX]
NO_SIZE, OTHER_SIZES = [0, 2.5], [-1, NAN, "4", None, True]
NOT_POSITIVE, OTHER_POSITIVES = [0], [-1.0, NAN, INF, "1", np.float32(-2)]


def name_of(function: Callable) -> str:
    """The module and name of a function, of a class or of a method's class."""
    while isinstance(function, partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__.removeprefix('snnjax.')}.{named.__qualname__}"


def refused(
    function: Callable, good: dict, /, *, named: str | None = None, **bad: list
) -> Iterator[Case]:
    """Cases of one function: ``good`` arguments, and values that an argument refuses.

    ``named`` is what the error calls the argument where that is not its own name.
    """
    for argument, values in bad.items():
        for value in values:
            call = partial(function, **{**good, argument: value})
            name = f"{name_of(function)}: {argument}={value!r:.40}"
            yield name, call, named or argument, value


def allowed(name: str, call: Callable[[], Any]) -> Case:
    """A call at the edge of what is allowed, that must work."""
    return name, call, None, None
