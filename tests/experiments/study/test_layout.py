"""Rows side by side: every row once, and as many at a time as devices allow."""

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.study import layout
from experiments.study.config import MODES, StudyConfig
from experiments.study.grid import grid, references

DEVICES = st.integers(1, 16)
FEWER = settings(max_examples=60)


def some(values):
    return st.lists(st.sampled_from(values), min_size=1, unique=True).map(tuple)


PARTS = st.builds(
    lambda **options: [
        part
        for of in (references, grid)
        for part in of(StudyConfig(timesteps=2, **options))
    ],
    seeds=some((0, 1, 2)),
    only=st.sampled_from((None, "weights", "membrane")),
    modes=some(MODES),
    bits=some((2, 3, 8, 9)),
    grid=some(("mid_rise", "mid_tread")),
    repeat=st.booleans(),
).flatmap(
    lambda parts: st.lists(st.sampled_from(parts), unique_by=lambda spec: spec.name)
)


@given(st.integers(1, 40), DEVICES)
def test_as_many_side_by_side_as_divide_the_devices(rows, devices):
    number = len(layout.chunks(range(rows), devices)[0])
    fitting = [n for n in range(1, devices + 1) if devices % n == 0 and n <= rows]
    assert number == fitting[-1]


@given(st.lists(st.integers()), DEVICES)
def test_chunks_are_the_items_in_order(items, devices):
    chunks = layout.chunks(items, devices)
    assert [item for chunk in chunks for item in chunk] == items
    assert all(devices % len(chunk) == 0 for chunk in chunks)
    # No row waits for a device that a larger chunk would have given it.
    assert [len(chunk) for chunk in chunks] == sorted(map(len, chunks), reverse=True)


@FEWER
@given(PARTS, DEVICES)
def test_every_row_is_in_one_group_of_its_program(parts, devices):
    groups = layout.groups(parts, devices, 100)
    names = [part.name for group in groups for part in group]
    assert sorted(names) == sorted(part.name for part in parts)
    for group in groups:
        assert devices % len(group) == 0
        kinds = {(part.compile_key, part.mode, part.seed) for part in group}
        assert len(kinds) == 1
        assert len(group) == 1 or group[0].target != "none"


@FEWER
@given(PARTS)
def test_one_device_keeps_the_order(parts):
    assert layout.groups(parts, 1, 100) == [[part] for part in parts]


@pytest.mark.parametrize(
    ("rows", "devices", "lengths"),
    [(9, 1, [4, 4, 1]), (9, 2, [4, 4, 1]), (9, 8, [8, 1]), (7, 2, [4, 2, 1])],
)
def test_networks_that_are_not_trained_are_evaluated_together(rows, devices, lengths):
    bits = tuple(range(2, 2 + rows))
    config = StudyConfig(bits=bits, only="membrane", modes=("ptq", "qat"))
    own = [spec for spec in grid(config) if spec.signed]
    trained = [spec for spec in own if spec.mode == "qat"]
    others = [spec for spec in own if spec.mode == "ptq"]
    assert [len(group) for group in layout.groups(others, devices, 10_000)] == lengths
    assert layout.groups(trained, devices, 10_000) == layout.groups(trained, devices, 1)


@FEWER
@given(PARTS, DEVICES)
def test_what_rows_are_compared_with_keeps_its_place_before_them(parts, devices):
    alone = [part for part in parts if part.target == "none"]
    parts = alone + [part for part in parts if part not in alone]
    groups = layout.groups(parts, devices, 100)
    assert groups[: len(alone)] == [[part] for part in alone]


def test_rows_share_the_devices_that_are_left():
    assert layout.mesh_for(3, 1) is None
    mesh = layout.mesh_for(1, jax.device_count())
    assert mesh is None or dict(mesh.shape) == {"config": 1, "data": jax.device_count()}


@pytest.fixture
def there(monkeypatch):
    """JAX as it would see so many devices, of so many processes."""

    def see(devices, processes):
        monkeypatch.setattr(jax, "device_count", lambda: devices)
        monkeypatch.setattr(jax, "process_count", lambda: processes)
        monkeypatch.setattr(jax, "devices", lambda: jax.local_devices() * devices)

    return see


@pytest.mark.parametrize("asked", [None, 8])
@pytest.mark.parametrize("processes", [1, 2])
def test_all_devices_are_taken(there, asked, processes):
    there(8, processes)
    assert layout.count_devices(StudyConfig(devices=asked)) == 8


@pytest.mark.parametrize(
    ("devices", "processes", "options", "said"),
    [
        (8, 2, {"devices": 4}, r"the 2 processes have 8 devices .* got --devices 4"),
        (1, 1, {"devices": 2}, "devices must be at most 1"),
        (3, 1, {}, "batch_size must be a multiple of the 3 devices .* got 32"),
        (8, 1, {"batch_size": 12}, "batch_size must be a multiple of the 8 devices"),
    ],
)
def test_devices_that_do_not_go_are_refused(there, devices, processes, options, said):
    there(devices, processes)
    with pytest.raises(ValueError, match=said):
        layout.count_devices(StudyConfig(**options))
    there(4, 1)
    assert layout.count_devices(StudyConfig(devices=4, batch_size=12)) == 4
