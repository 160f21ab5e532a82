"""What the devices send each other, in the programs as XLA runs them."""

import pytest
import several

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def found():
    return several.run("collectives", "quickly", devices=8)


@pytest.fixture(scope="module")
def convolutional():
    return several.run("collectives", "convolutional", devices=8)


def all_reduces(sent):
    """Their number; there is nothing else."""
    assert set(sent) <= {"all-reduce"}
    return sent.get("all-reduce", 0)


def test_batch_norm_sends_once_forward_and_once_backward(found):
    assert all_reduces(found["forward"]) == 1
    assert all_reduces(found["gradient"]) == 2


def test_a_step_sends_for_batch_norms_and_once_for_all_gradients(found):
    assert found["norms"] == 2
    assert all_reduces(found["step"]) <= 2 * found["norms"] + 1


def test_so_does_that_of_a_convolutional_network(convolutional):
    norms = convolutional["norms"]
    assert norms == 6
    assert all_reduces(convolutional["none"]) <= 2 * norms + 1
    # What is made again is sent again, but not of the stem, which is kept.
    for remat in ("block", "full"):
        assert all_reduces(convolutional[remat]) <= 3 * norms
    # The rates of all images, and their gradient.
    assert all_reduces(convolutional["penalty"]) <= 3 * norms + 2 * 5


def test_evaluation_sends_at_its_end_alone(found):
    evaluation = found["evaluation"]
    for name in ("trains", "step", "add"):
        assert evaluation[name] == {}
    assert all_reduces(evaluation["sum"]) == 1


def test_networks_side_by_side_send_nothing(found):
    assert found["sweep step"] == {}
    assert set(map(str, found["sweep evaluation"].values())) == {"{}"}
