import os

import jax
import pytest
import quickly
from hypothesis import settings

# The suite draws the same cases every time; `pytest tests
# --hypothesis-profile=nightly` draws others, and many.
settings.register_profile(
    "suite", max_examples=100, derandomize=True, deadline=None, database=None
)
settings.register_profile("nightly", max_examples=10_000, deadline=None)
settings.load_profile("suite")

# Scripts for environments with torch.
collect_ignore_glob = ["golden/make_*", "golden/compare_*"]

# Compiling is most of what the suite does. Here it compiles as for users where what is
# shown hangs on that, elsewhere quickly; `--as-for-users` does so everywhere.
AS_FOR_USERS = {
    *("test_neurons.py", "test_golden_neurons.py", "test_surrogate.py"),
    *("test_fuzz_neurons.py", "test_counts.py", "test_published_checkpoints.py"),
    *("test_conv.py", "test_memory.py", "test_benchmark.py"),
}

# Workers take files in this order; a long one begun last would leave the others idle.
LONGEST = ("test_study.py", "test_killed.py", "test_train.py", "test_readme.py")


def pytest_addoption(parser):
    parser.addoption(
        "--as-for-users",
        action="store_true",
        help="compile everything as it is compiled for users: takes twice as long",
    )


def pytest_configure(config):
    flag, flags = quickly.FLAG, os.environ.get("XLA_FLAGS", "")
    # XLA stops a process for a flag it does not know: where it was tried alone.
    tried = jax.__version_info__[:2] == (0, 10)
    if tried and flag not in flags and not config.getoption("as_for_users"):
        # Of the environment, so that commands that tests start compile quickly too.
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """What takes long to compile is compiled once for all workers and commands.

    Empty when a session begins. A test that counts compilations counts requests for
    them, which a cache does not make fewer.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    options = {
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(request):
    everything = request.config.getoption("as_for_users")
    quick = not everything and request.path.name not in AS_FOR_USERS
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def x64():
    """Arrays in float64 for one test."""
    with jax.enable_x64(True):
        yield
