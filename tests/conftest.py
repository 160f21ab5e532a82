import gc
import itertools
import os
import sys
from pathlib import Path

import jax
import pytest
import quickly
from hypothesis import settings
from jaxtyping import install_import_hook

# The suite draws the same cases every time; `pytest tests
# --hypothesis-profile=nightly` draws others, and many.
settings.register_profile(
    "suite", max_examples=100, derandomize=True, deadline=None, database=None
)
settings.register_profile("nightly", max_examples=10_000, deadline=None)
settings.load_profile("suite")

TESTS = Path(__file__).parent

# Scripts for environments with torch.
collect_ignore_glob = ["golden/make_*", "golden/compare_*"]

# Compiling is most of what the suite does. Where it costs little, programs are compiled
# as users compile them; in these places, which compile whole networks and training
# steps, without most optimizations. `--as-for-users` leaves nothing out.
COMPILED_QUICKLY = (
    *("experiments", "test_pages.py"),
    *("snnjax/train", "snnjax/models", "snnjax/report"),
    *("snnjax/test_remedies.py", "snnjax/test_cost.py", "snnjax/test_checkpoint.py"),
    *("snnjax/parallel", "snnjax/distill", "golden/test_golden_networks.py"),
    *("snnjax/layers", "snnjax/integer", "snnjax/calibrate", "snnjax/interop"),
    *("snnjax/data", "snnjax/runs", "snnjax/emd/test_transport.py"),
    *("snnjax/test_strict_modes.py", "snnjax/test_round_trips.py"),
)
# Files of those places whose results depend on how they are compiled.
AS_FOR_USERS = {
    "test_memory.py",
    "test_benchmark.py",
    "test_digits.py",
    "test_pieces.py",
    "test_pruned.py",
    "test_published_checkpoints.py",
}

# The library needs no implicit promotion of dtypes where all arrays have one, and in
# these places none of ranks. Elsewhere numbers of channels broadcast to images.
STRICT_RANKS = (
    *("snnjax/conv", "snnjax/emd", "snnjax/firing", "snnjax/neurons"),
    *("snnjax/quantize", "snnjax/spiketrain"),
    *("snnjax/test_int_limbs.py", "snnjax/test_surrogate.py"),
)
# Of dtypes: the code of OTT, of optax's adam and muon; NIR's float64 among float32.
PROMOTES = {
    *("test_transport.py", "test_fit.py", "test_recipe.py", "test_batches.py"),
    *("test_sequential.py", "test_digits.py", "test_twenty_lines.py"),
    *("test_pruned.py", "test_sequences.py", "test_reconstruct.py", "test_nir.py"),
}

# Markers whose tests run as users do, without the checks of shapes and types that the
# quick tests make: these are a tenth of the time.
LONG = ("slow", "nightly")

# Workers take files in this order; a long one begun last would leave the others idle.
LONGEST = (
    *("test_study.py", "test_killed.py", "test_train.py", "test_pages.py"),
    *("test_readme.py", "test_published_checkpoints.py", "test_fit.py"),
    *("test_sequence_pages.py", "test_golden_networks.py", "test_nir.py"),
)


def pytest_addoption(parser):
    parser.addoption(
        "--as-for-users",
        action="store_true",
        help="compile everything as it is compiled for users: takes twice as long",
    )


def pytest_configure(config):
    if config.option.markexpr not in LONG:
        # What is imported already would go unchecked.
        assert "snnjax" not in sys.modules, "a conftest.py imports snnjax at its top"
        install_import_hook("snnjax", "beartype.beartype")
    # XLA stops a process for a flag it does not know: where they were tried alone.
    tried = jax.__version_info__[:2] == (0, 10)
    if tried and not config.getoption("as_for_users"):
        # Of the environment, so that commands that tests start compile quickly too.
        os.environ["XLA_FLAGS"] = quickly.add_to(os.environ.get("XLA_FLAGS", ""))


def pytest_ignore_collect(collection_path, config):
    """Import no file without a test of the marker asked for: importing takes long."""
    marker = config.option.markexpr
    if marker not in LONG or collection_path.suffix != ".py":
        return None
    return None if marker in collection_path.read_text().lower() else True


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow") and item.get_closest_marker("nightly"):
            raise pytest.UsageError(f"{item.nodeid} is slow and nightly; choose one")
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish():
    """Collect garbage less often: tracing makes many objects, hardly any in cycles."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


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
    # Small programs here alone: commands would warn of one that is just being written.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)


def lies_in(path, places) -> bool:
    """Tell whether a test file lies in one of these places under ``tests``."""
    return any((TESTS / place) in (path, *path.parents) for place in places)


_tests_until_a_look = itertools.cycle(range(20))  # a look takes milliseconds


@pytest.fixture(autouse=True)
def drop_programs():
    """Drop the compiled programs once they are many."""
    yield
    if not next(_tests_until_a_look):
        from snnjax import process  # not before its types are checked

        process.drop_programs()


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(request):
    """Turn most optimizations off where compiling takes long."""
    everything = request.config.getoption("as_for_users")
    slow = lies_in(request.path, COMPILED_QUICKLY)
    quick = slow and not everything and request.path.name not in AS_FOR_USERS
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture(scope="module", autouse=True)
def refuse_promotion(request):
    """Refuse implicit promotion of ranks and dtypes, as far as the code allows."""
    ours = request.path.name not in PROMOTES
    ranks = "raise" if ours and lies_in(request.path, STRICT_RANKS) else "allow"
    dtypes = "strict" if ours and lies_in(request.path, ("snnjax",)) else "standard"
    with jax.numpy_rank_promotion(ranks), jax.numpy_dtype_promotion(dtypes):
        yield


@pytest.fixture
def mixed_dtypes():
    """Let JAX promote dtypes for one test, which mixes them on purpose."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def x64():
    """Arrays in float64 for one test."""
    with jax.enable_x64(True):
        yield
