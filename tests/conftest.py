import jax
import pytest

# Scripts for environments with torch.
collect_ignore_glob = ["golden/make_*", "golden/compare_*"]

# Workers take files in this order; a long one begun last would leave the others idle.
LONGEST = ("test_study.py", "test_train.py", "test_readme.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def x64():
    """Arrays in float64 for one test."""
    with jax.enable_x64(True):
        yield
