"""A training loop of one's own that survives: resumes, saves, stops on a signal."""

import signal
from typing import NamedTuple

import numpy as np
import pytest

from snnjax import runs

STEPS = 6


class At(NamedTuple):
    state: dict
    step: int
    steps: int = STEPS


def steps(state):
    """Yield the steps that are left, as `train.fit` would."""
    for step in range(int(state["step"]) + 1, STEPS + 1):
        state = {"step": np.int32(step), "w": state["w"] * 0.9 + step}
        yield At(state, step)


def first():
    return {"step": np.int32(0), "w": np.float32([1, 2])}


def run(folder, until=None, warn=print, **options):
    seen = []
    with runs.resumable(folder, first(), config={"seed": 0}, warn=warn) as one:
        for at in one.watch(steps(one.state), **options):
            seen.append(at.step)
            if at.step == until:
                signal.raise_signal(signal.SIGTERM)
    return one.state, seen


def test_a_loop_resumes_where_a_signal_stopped_it(tmp_path):
    expected, seen = run(tmp_path / "whole")
    assert seen == [1, 2, 3, 4, 5, 6]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(runs.PreemptedError, match="step 4 of 6") as stopped:
        run(tmp_path / "cut", until=4)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    state, seen = run(tmp_path / "cut")
    assert seen == [5, 6]
    np.testing.assert_array_equal(state["w"], expected["w"])


def test_a_loop_saves_every_so_many_seconds(tmp_path):
    run(tmp_path / "often", seconds=0.0)
    assert run(tmp_path / "often")[1] == []  # the last step was saved as well
    run(tmp_path / "never", seconds=1e9)
    assert run(tmp_path / "never")[1] == [1, 2, 3, 4, 5, 6]


def test_a_corrupt_checkpoint_costs_steps_and_warns(tmp_path):
    with pytest.raises(runs.PreemptedError):
        run(tmp_path, until=4, seconds=0.0)
    (tmp_path / "4" / "about" / "metadata").write_text("{")
    messages = []
    assert run(tmp_path, warn=messages.append, seconds=1e9)[1] == [4, 5, 6]
    assert "step 3 is loaded instead" in messages[0]
    for about in tmp_path.glob("*/about/metadata"):
        about.write_text("{")
    assert run(tmp_path, warn=messages.append)[1] == [1, 2, 3, 4, 5, 6]
    assert "starts from the beginning" in messages[1]


def test_another_run_is_refused(tmp_path):
    run(tmp_path, seconds=0.0)
    with (
        pytest.raises(ValueError, match="seed is 0 there and 1 now"),
        runs.resumable(tmp_path, first(), config={"seed": 1}),
    ):
        pass


def test_networks_side_by_side_keep_a_folder_each(tmp_path):
    def unstack(state):
        return [state, {"step": state["step"], "w": -state["w"]}]

    with (
        runs.resumable(tmp_path / "a", first()) as a,
        runs.resumable(tmp_path / "b", first()) as b,
    ):
        for _ in runs.watch([a, b], steps(a.state), seconds=0.0, unstack=unstack):
            pass
        assert a.latest() == b.latest() == STEPS
    np.testing.assert_array_equal(a.state["w"], -b.state["w"])
    with runs.resumable(tmp_path / "b", first()) as again:
        np.testing.assert_array_equal(again.state["w"], b.state["w"])


@pytest.mark.parametrize("seconds", [60.0, 0.0])
def test_a_break_leaves_the_state_that_was_reached(tmp_path, seconds):
    with runs.resumable(tmp_path, first()) as one:
        for progress in one.watch(steps(one.state), seconds=seconds):
            if progress.step == 3:
                break
        np.testing.assert_array_equal(one.state["w"], progress.state["w"])
