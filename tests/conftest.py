import jax
import pytest


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def x64():
    """Arrays in float64 for one test."""
    with jax.enable_x64(True):
        yield
