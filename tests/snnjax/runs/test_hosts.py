"""Processes that meet and agree; what they are asked for and cannot do is refused."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from snnjax.runs import hosts

HERE = Path(__file__).parent


@pytest.fixture
def asked(monkeypatch):
    """What JAX was told, which then starts nothing."""
    told = []
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(jax.config, "update", lambda *x: told.append(x))
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *x, **options: told.append(x)
    )
    return told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((None, "host:1", None, None), r"needs all of coordinator \(HOST:PORT\)"),
        ((8, None, 2, 0), "needs all of .* got None, 2 and 0"),
        ((8, "host:1", 2, None), "needs all of .* got host:1, 2 and None"),
        ((8, "host", 2, 0), "must be HOST:PORT of the primary host, got 'host'"),
        ((8, "host:x", 2, 0), "must be HOST:PORT of the primary host"),
        ((8, "host:1", 2, 2), "process_id from 0 below it, got 2 and 2"),
        ((8, "host:1", 2, -1), "process_id from 0 below it, got 2 and -1"),
        ((8, "host:1", 0, 0), "num_processes must be at least 1"),
        ((2, "host:1", 3, 0), "devices must be a multiple of the 3 processes, got 2"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(asked, arguments, said):
    with pytest.raises(ValueError, match=said):
        hosts.initialize(*arguments)
    assert asked == []


def test_each_process_makes_its_share_of_the_devices(asked, monkeypatch):
    hosts.initialize(8, "[::1]:1", 2, 1)
    assert ("jax_num_cpu_devices", 4) in asked
    assert ("[::1]:1", 2, 1) in asked
    del asked[:]
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    hosts.initialize(8, "host:1", 2, 1)
    assert "jax_num_cpu_devices" not in dict(x for x in asked if len(x) == 2)


def failing(error):
    def initialize(*_, **options):
        raise error

    return initialize


def test_alone_where_jax_sees_no_cluster(asked, monkeypatch):
    hosts.initialize()
    assert () in asked
    none = ValueError("coordinator_address should be defined.")
    monkeypatch.setattr(jax.distributed, "initialize", failing(none))
    hosts.initialize(devices=2)


def test_a_port_that_cannot_be_had_is_told(asked, monkeypatch):
    error = RuntimeError("UNKNOWN: address in use\nand more")
    monkeypatch.setattr(jax.distributed, "initialize", failing(error))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match=r"did not meet at host:1 .*in use\); start"):
        hosts.initialize(None, "host:1", 2, 0)
    assert signal.getsignal(signal.SIGINT) is before


def test_one_process_agrees_with_itself():
    assert hosts.run_on_primary(lambda: {"a": (1, math.nan)})["a"][0] == 1
    assert hosts.run_on_all_hosts(lambda: 3) == 3
    assert hosts.all_gather([1, 2]).tolist() == [[1, 2]]
    tree = {"a": object()}
    assert hosts.broadcast_from_primary(tree) is tree
    with pytest.raises(KeyError), hosts.abort_on_unexpected_error(ValueError):
        raise KeyError("as ever")


def free_port() -> int:
    with socket.socket() as at:
        at.bind(("localhost", 0))
        return at.getsockname()[1]


def agreed(word: object) -> tuple[list[dict], list[int], list[str]]:
    """What two processes of agreeing.py print, how they end, and their errors."""
    port, environment = str(free_port()), os.environ | {"JAX_PLATFORMS": "cpu"}
    environment |= {"PYTHONPATH": str(HERE.parents[2])}
    environment.pop("XLA_FLAGS", None)
    processes = [
        subprocess.Popen(
            [sys.executable, HERE / "agreeing.py", port, str(me), str(word)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for me in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = []
    for out, errors in said:
        lines = [line for line in out.splitlines() if line.startswith("{")]
        assert lines, errors
        found.append(json.loads(lines[0]))
    return found, [p.returncode for p in processes], [errors for _, errors in said]


@pytest.mark.slow
def test_two_processes_agree(tmp_path):
    found, codes, errors = agreed(tmp_path / "states")
    for me, one in enumerate(found):
        assert one["devices"] == [1, 2]
        assert one["first"] == (me == 0)
        assert one["by_first"] == [{"me": 0, "x": 0.1}, True, [1.0, 1.0]]
        assert one["called"] == ([0] if me == 0 else [])
        assert one["by_all"] == me
        assert one["of_all"] == [[0, 0], [1, 10]]
        floats = one["of_first"].pop("f")
        assert floats[0] == pytest.approx(0.1)
        assert math.isnan(floats[1])
        assert one["of_first"] == {"b": [True], "i": 7}
        assert one["dtypes"] == ["float32", "bool"]
        assert one["stopped"] == "143: stopped by SIGTERM at the same place"
        assert one["together"] == "'of all'"
    first, second = (one["by_first_fails"] for one in found)
    assert first == ["ValueError: bad", "OSError: [Errno 28] full", "none"]
    of_first = "ValueError: the primary process failed: "
    assert second == [of_first + "bad", of_first + "[Errno 28] full", "none"]
    first, second = (one["by_all_fails"] for one in found)
    assert first == [
        "ValueError: bad",
        "ValueError: process 1 failed; its own output has the reason",
    ]
    assert second == [
        "ValueError: process 0 failed; its own output has the reason",
        "ValueError: bad",
    ]
    # What nobody expected ends both, and says what it was.
    assert codes[0] == 1
    assert "RuntimeError: a fault of the first alone" in errors[0]
    assert codes[1] not in (0, 7)


@pytest.mark.nightly
def test_one_that_compiles_for_long_is_waited_for():
    """Gloo alone gives up after 30 s."""
    found, codes, errors = agreed(33)
    assert codes == [0, 0], errors
    # On 4, 2 and 1 of them, each of 16 ones is counted by the devices of its batch.
    assert found == [{"sums": [16.0, 32.0, 64.0]}] * 2
