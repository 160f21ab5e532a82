"""Batches that are read and masked sequences: 8 devices do what one does."""

import numpy as np
import pytest
import several


def assert_same(found):
    one, many = found["one"], found["many"]
    assert found["devices"] == 8
    assert len(set(one["losses"])) == len(one["losses"])
    np.testing.assert_allclose(many["losses"], one["losses"], rtol=0, atol=1e-8)
    assert found["far"] < 1e-8  # rates, of which the penalty is, are float32


@pytest.mark.slow
def test_sequences_of_different_lengths_on_8_devices():
    found = several.run("read_batches", "sequences", devices=8)
    assert_same(found)
    assert found["one"]["dead"] == found["many"]["dead"]
    assert any(sum(dead.values()) for dead in found["one"]["dead"])


@pytest.mark.nightly
def test_sew_resnet18_of_64x64_images_on_8_devices():
    found = several.run("read_batches", "read", devices=8)
    assert_same(found)
    assert len(found["one"]["losses"]) == 20
    assert found["one"]["fired"] == found["many"]["fired"]


@pytest.mark.nightly
def test_processes_read_each_its_share():
    one = several.run("read_batches", "read", devices=2)["one"]
    for process in several.run("read_batches", "processes", devices=1, processes=2):
        np.testing.assert_allclose(
            process["many"]["losses"], one["losses"], rtol=0, atol=1e-9
        )
        # The groups are of other images; accuracy and sums are not.
        assert process["many"]["fired"] == one["fired"]


@pytest.mark.nightly
def test_a_killed_run_goes_on_where_grain_was(tmp_path):
    pytest.importorskip("grain")
    whole = several.run("read_batches", "resume", str(tmp_path / "a"), devices=1)
    with pytest.raises(AssertionError):  # it is killed, and says nothing
        several.run("read_batches", "resume", str(tmp_path / "b"), "14", devices=1)
    resumed = several.run("read_batches", "resume", str(tmp_path / "b"), devices=1)
    assert (whole[0], resumed[0]) == (False, True)
    assert whole[1] == resumed[1]
