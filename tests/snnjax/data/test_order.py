import numpy as np
import pytest

from snnjax.data.order import epoch_order, eval_batches, train_batches


def test_epoch_order_is_a_permutation_of_its_own():
    orders = [epoch_order(s, e, 50) for s in range(4) for e in range(4)]
    for order in orders:
        assert order.dtype == np.int32
        assert sorted(order.tolist()) == list(range(50))
    assert len({order.tobytes() for order in orders}) == len(orders)
    np.testing.assert_array_equal(orders[6], epoch_order(1, 2, 50))


def test_epoch_order_is_uniform():
    first = np.array([epoch_order(0, epoch, 4)[0] for epoch in range(400)])
    assert np.bincount(first, minlength=4).min() > 70  # 100 each, 3.5 deviations


def test_training_batches_are_the_order_without_the_rest():
    order = epoch_order(0, 0, 23)
    result = train_batches(order, 5)
    assert result.shape == (4, 5)
    np.testing.assert_array_equal(result.ravel(), order[:20])


@pytest.mark.parametrize(("n", "size"), [(1, 1), (7, 3), (9, 3), (2, 5), (100, 32)])
def test_eval_batches_cover_each_index_once(n, size):
    seen = []
    for index, mask in eval_batches(n, size):
        assert index.shape == mask.shape == (size,)
        assert (index.dtype, mask.dtype) == (np.int32, bool)
        assert index.min() >= 0
        assert index.max() < n
        seen += index[mask].tolist()
    assert seen == list(range(n))
