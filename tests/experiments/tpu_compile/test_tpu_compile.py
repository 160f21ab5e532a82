"""The training step compiled for eight TPU chips: what it exchanges, and its memory."""

import importlib.util
import io
import json
import os
import subprocess
import sys

import pytest
import quickly
from rich.console import Console

from experiments.tpu_compile import __main__ as tpu_compile
from experiments.tpu_compile import step as step_of
from experiments.tpu_compile.step import CompileConfig

# By hand, in the manner of a compiled program's text: 2 x 3 x 8 floats and 5 bfloat16
# are summed, 16 bytes gathered; what starts is counted where it is done.
PROGRAM = """
%sum.1 = f32[3,8]{1,0:T(4,128)S(1)} all-reduce(%a), channel_id=1, to_apply=%add
%sum.2 = (f32[3,8]{1,0}, /*index=1*/bf16[5]{0:T(128)(2,1)}) all-reduce(%a, %b), x=1
%g = (s8[2]{0}, s8[16]{0}) all-gather-start(%c), metadata={op_name="psum"}
%h = s8[16]{0} all-gather-done(%g)
%f = f32[100]{0} fusion(%sum.1), calls=%not.an.all-reduce
%e = f32[] get-tuple-element(%all-reduce.7), index=0
"""


def test_collectives_are_counted_with_their_bytes():
    assert step_of.count_collectives(PROGRAM) == {
        "all-reduce": {"number": 2, "bytes": 2 * 3 * 8 * 4 + 5 * 2},
        "all-gather": {"number": 1, "bytes": 16},
    }


def test_out_of_memory_errors_are_parsed():
    known = RuntimeError(
        "RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (1.50T) "
        "exceeds available HBM (15.75G). HLO module: jit_step"
    )
    assert step_of.parse_out_of_memory(known) == (1536 * 2**30, 15.75 * 2**30)
    known = RuntimeError(
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: XLA:TPU compile permanent "
        "error. Ran out of memory in memory space hbm. Used 31.25G of 31.24G hbm. "
        "Exceeded hbm capacity by 2.29M."
    )
    assert step_of.parse_out_of_memory(known) == (31.25 * 2**30, 31.24 * 2**30)
    with pytest.raises(RuntimeError, match="INTERNAL"):
        step_of.parse_out_of_memory(RuntimeError("INTERNAL: something else"))


@pytest.mark.parametrize(
    ("room", "first", "found"),
    [(5000, 1024, 4096), (1500, 4096, 1024), (900, 1024, None), (1e5, 8, 99328)],
)
def test_largest_batch_search(monkeypatch, room, first, found):
    # 8 chips; memory is 100 and 1 an image, and above 80,000 images somewhat less.
    def step(config, chips):
        peak = 100 + config.batch - max(0, config.batch - 80_000) * 0.01
        numbers = {"batch": config.batch, "fits": peak <= room + 100, "peak": peak}
        return numbers | ({"arguments": 100} if numbers["fits"] else {})

    monkeypatch.setattr(step_of, "compile_step", step)
    config, chips = CompileConfig(batch=first), [None] * 8
    tried = step_of.find_largest_batch(config, chips, step(config, chips), room + 100)
    fit = [n["batch"] for n in tried if n["fits"] and n["batch"] % 1024 == 0]
    missed = [n["batch"] for n in tried if not n["fits"]]
    assert max(fit, default=None) == found
    assert min(missed) <= (found or 0) + 1024
    assert len(tried) <= 5
    assert len(fit) <= 3  # each takes minutes


def test_missing_libtpu_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[tpu-compile\]'"):
        tpu_compile.run(CompileConfig(), Console(quiet=True))


@pytest.mark.parametrize("name", ["width", "timesteps", "batch"])
def test_sizes_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        CompileConfig(**{name: 0})


def test_table_shows_every_batch():
    gone = {"batch": 2048, "fits": False, "peak": 20 * 2**30, "seconds": 1.0}
    sizes = dict.fromkeys(("arguments", "temporaries", "outputs", "program"), 2**29)
    fits = sizes | {"batch": 1024, "fits": True, "peak": 2**33, "seconds": 2.0}
    fits |= {"operations": 3e9, "bytes_accessed": 4e9}
    fits["collectives"] = {"all-reduce": {"number": 5, "bytes": 6_000_000}}
    console = Console(width=100, file=io.StringIO())
    console.print(tpu_compile.to_table(15.75 * 2**30, [fits, gone]))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    text = [" ".join(line) for line in lines]
    assert any("1024" in line and "2048" in line for line in text)
    assert any("of 15.75 GiB" in t and "20.00 do not fit" in t for t in text)
    assert any("all-reduce" in t and "5: 6.00" in t for t in text)


CHIPS, BATCHNORMS = 8, 9  # of SEW-ResNet8: the stem's, two a block, two shortcuts'

compiles = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed; pip install -e '.[test,tpu-compile]' elsewhere",
)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Two batches, as a command, from a plain shell: it sets up libtpu itself."""
    out = tmp_path_factory.mktemp("tpu") / "found.jsonl"
    plain = {k: v for k, v in os.environ.items() if k[:4] not in ("JAX_", "TPU_")}
    plain["XLA_FLAGS"] = quickly.not_so()  # libtpu stops at a flag that is not its own
    for batch in (8192, 16384):  # more than stays in a chip's fast memory
        options = {"model": "sew_resnet8", "dataset": "digits", "width": 16}
        options |= {"batch": batch, "precision": "default", "out": out}
        command = [sys.executable, "-m", "experiments.tpu_compile"]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        done = subprocess.run(command, env=plain, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "8 x TPU v5 lite" in done.stdout
    return [json.loads(line) for line in out.read_text().splitlines()]


@compiles
@pytest.mark.nightly
def test_all_chips_take_part(steps):
    assert [step["devices"] for step in steps] == [CHIPS] * 2
    assert all(step["fits"] for step in steps)
    # Three times the products of the convolutions, T = 4; if each chip had the whole
    # batch, eight times that. Elementwise work is small beside it, but not nothing.
    products = 3_026_432
    for step in steps:
        each = step["operations"] * CHIPS / step["batch"] / (3 * 2 * products)
        assert 0.8 < each < 5


@compiles
@pytest.mark.nightly
def test_only_all_reduces_cross_chips(steps):
    # Forward and backward of each BatchNorm, and the gradients at the end. XLA may do
    # several at once.
    for step in steps:
        assert set(step["collectives"]) == {"all-reduce"}
        assert 1 < step["collectives"]["all-reduce"]["number"] <= 2 * BATCHNORMS + 1
    assert steps[0]["collectives"] == steps[1]["collectives"]


@compiles
@pytest.mark.nightly
def test_a_larger_batch_takes_more_memory(steps):
    small, large = steps
    assert large["peak"] > small["peak"]
    assert large["temporaries"] > small["temporaries"]
