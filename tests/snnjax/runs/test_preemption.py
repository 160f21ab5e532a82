"""Signals: the first is looked at, the second ends, and handlers come back."""

import signal
import subprocess
import sys

import pytest

from experiments import stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_until_the_run_looks(number):
    before = signal.getsignal(number)
    with stopping.watched():
        stopping.look("before any signal")
        signal.raise_signal(number)
        assert stopping.heard() == number
        with pytest.raises(stopping.Stopped, match="at step 3") as stopped:
            stopping.look("at step 3")
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert stopping.heard() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number):
    program = (
        "import signal; from experiments import stopping\n"
        "with stopping.watched():\n"
        f"    signal.raise_signal({int(number)})\n"
        f"    signal.raise_signal({int(number)})\n"
        "    print('went on')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert ended.returncode == -number
    assert ended.stdout == b""
