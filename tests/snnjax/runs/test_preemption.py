"""Signals: the first is looked at, the second ends, and handlers come back."""

import signal
import subprocess
import sys

import pytest

from snnjax.runs import preemption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_until_the_run_looks(number):
    before = signal.getsignal(number)
    with preemption.handle_signals():
        preemption.raise_if_stopping("before any signal")
        signal.raise_signal(number)
        assert preemption.received_signal() == number
        with pytest.raises(preemption.PreemptedError, match="at step 3") as stopped:
            preemption.raise_if_stopping("at step 3")
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert preemption.received_signal() == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number):
    program = (
        "import signal; from snnjax.runs import preemption\n"
        "with preemption.handle_signals():\n"
        f"    signal.raise_signal({int(number)})\n"
        f"    signal.raise_signal({int(number)})\n"
        "    print('went on')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert ended.returncode == -number
    assert ended.stdout == b""
