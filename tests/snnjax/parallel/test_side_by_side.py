"""Networks in one program: each does what it does by itself."""

import numpy as np
import pytest
import several

MESHES = ("8", "4 x 2", "1")
BROKEN = 5  # of the eight

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module", params=["float64", "float32", "convolutional"])
def found(request):
    # Compiled quickly, XLA adds some sums up in another order on several devices.
    return several.run("side_by_side", request.param, devices=8, as_for_users=True)


def test_they_are_different_networks(found):
    assert found["different"] == 8


@pytest.mark.parametrize("mesh", ["8", "1"])
def test_a_device_a_network_or_one_for_all_gives_the_same_numbers(found, mesh, request):
    """Losses bit for bit, and all of the state after the last step.

    That too bit for bit, but where one device computes the convolutions of all: it adds
    up their gradients in another order, to the last bit.
    """
    assert found[mesh]["devices"] == int(mesh)
    assert not np.any(np.delete(found[mesh]["far"], BROKEN))
    assert np.all(np.delete(found[mesh]["apart"], BROKEN) < 1e-6)
    if mesh == "8" or "convolutional" not in request.node.name:
        assert found[mesh]["equal"] == [True] * 8


@pytest.mark.parametrize("mesh", MESHES)
def test_losses_are_those_of_the_network_alone(found, mesh, request):
    wide = "float64" in request.node.name
    far = np.delete(found[mesh]["far"], BROKEN)
    assert np.all(far <= (1e-9 if wide else 1e-6))
    assert found[mesh]["silent"] == [True] * 8


@pytest.mark.parametrize("mesh", MESHES)
def test_they_fire_as_alone(found, mesh):
    """Accuracy, all counts and latencies, and how far spikes moved, exactly."""
    fired = found[mesh]["fired"]
    assert fired in ([True] * 8, [])
    assert fired or mesh != "8"


@pytest.mark.parametrize("mesh", MESHES)
def test_only_a_network_that_is_not_finite_skips(found, mesh):
    skipped = np.zeros(8)
    skipped[BROKEN] = 4
    np.testing.assert_array_equal(found[mesh]["skipped"], skipped)


def test_the_error_names_the_network(found):
    config, step, layers = found["names"]
    assert (config, step) == (BROKEN, 2)
    assert "fc.bias" in layers
    if "stopped" in found:
        assert found["stopped"][:2] == [BROKEN, 1]


def test_a_sweep_goes_on_from_a_file(found):
    assert found["resumed"] == {"equal": True, "untouched": True}


def test_other_numbers_compile_nothing(found):
    assert found["compiled"] == 0


def test_the_networks_stay_the_callers(found):
    assert found["untouched"]
