import os

import jax
import pytest
from hypothesis import settings

# The suite draws the same cases every time; `pytest tests/fuzz
# --hypothesis-profile=nightly` draws others, and many.
settings.register_profile(
    "suite", max_examples=200, derandomize=True, deadline=None, database=None
)
settings.register_profile("nightly", max_examples=10_000, deadline=None)
settings.load_profile("suite")

# Scripts for environments with torch.
collect_ignore_glob = ["golden/make_*", "golden/compare_*"]

# Compiling networks is nearly all that these do; what they show does not hang on how
# well. All others run what users run.
QUICKLY_COMPILED = {
    *(
        "test_study.py",
        "test_training.py",
        "test_train.py",
        "test_calibrate.py",
        "test_sew_resnet.py",
    ),
    *("test_spiking_vgg.py", "test_spikingjelly.py", "test_cost.py", "test_layers.py"),
    *("test_golden_networks.py", "test_golden_spiketrains.py"),
    *("test_matching.py", "test_trains.py"),
    *("test_transport.py", "test_golden_transport.py", "test_losses.py", "test_run.py"),
    *("test_isi.py", "test_spike.py", "test_latency.py", "test_mesh.py"),
    *("test_guards.py", "test_recipe.py", "test_nir.py"),
}

# Workers take files in this order; a long one begun last would leave the others idle.
LONGEST = ("test_study.py", "test_killed.py", "test_train.py", "test_readme.py")


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
    quickly = request.path.name in QUICKLY_COMPILED
    jax.config.update("jax_disable_most_optimizations", quickly)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def x64():
    """Arrays in float64 for one test."""
    with jax.enable_x64(True):
        yield
