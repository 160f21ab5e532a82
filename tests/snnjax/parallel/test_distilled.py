"""Losses of a teacher on one device and on 8: distances of the whole batch."""

import numpy as np
import pytest
import several


@pytest.mark.nightly
def test_losses_are_those_of_the_whole_batch():
    found = several.run("distilled", devices=8)
    assert found.pop("devices") == 8
    for name, (one, many) in found.items():
        assert len(set(one)) == 3, name
        np.testing.assert_allclose(many, one, rtol=1e-7, err_msg=name)
