import json

import numpy as np
import pytest

from snnjax import cli, firing
from snnjax.firing import FiringCounts


def write(path, shift=0.0, seed=0, groups=8, **more):
    rng = np.random.default_rng(seed)
    rate = np.clip(np.random.default_rng(9).beta(0.4, 2, (2, 50)) + shift, 0, 1)
    parts = {f"sn.{i}": rng.binomial(40, rate[i], (groups, 50)) for i in range(2)}
    spikes = {name: part.sum(0) for name, part in parts.items()}
    firing.save_counts(FiringCounts(spikes, 40 * groups, parts, None, **more), path)
    return str(path)


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "ref.npz"), write(tmp_path / "far.npz", 0.1, 1)


def test_exit_codes(files, capsys):
    one, far = files
    assert cli.main(["compare", one, one]) == 0
    assert cli.main(["compare", one, far]) == 0
    assert cli.main(["compare", one, far, "--fail-on", "drift"]) == 1
    assert cli.main(["compare", one, one, "--fail-on", "drift"]) == 0
    assert capsys.readouterr().out.count("Verdict") == 4


def test_fail_above_is_about_the_emd_of_any_layer(files):
    one, far = files
    found = firing.report(*(firing.load_counts(path) for path in files))
    most = max(found.emd.values())
    assert cli.main(["compare", one, far, "--fail-above", str(most * 0.99)]) == 1
    assert cli.main(["compare", one, far, "--fail-above", repr(most)]) == 0


def test_json(files, tmp_path):
    path = tmp_path / "card.json"
    assert cli.main(["compare", *files, "--json", str(path), "--margin", "0.5"]) == 0
    numbers = json.loads(path.read_text())
    assert numbers["verdict"] == "below_margin"
    assert numbers["margin"] == 0.5
    assert set(numbers["layers"]) == {"sn.0", "sn.1"}


def test_a_folder_is_ranked(files, tmp_path, capsys):
    folder = tmp_path / "all"
    folder.mkdir()
    for name, shift in (("a", 0.02), ("b", 0.2), ("c", 0.08)):
        write(folder / f"{name}.npz", shift, 2)
    path = tmp_path / "all.json"
    assert cli.main(["compare", files[0], str(folder), "--json", str(path)]) == 0
    assert list(json.loads(path.read_text())) == ["b", "c", "a"]
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[1:]] == ["b", "c", "a"]


@pytest.mark.parametrize("kind", ["missing", "text", "layers", "empty", "above", "nan"])
def test_bad_input_is_one_sentence_and_writes_nothing(files, tmp_path, kind, capsys):
    one, other = files
    more = []
    if kind == "missing":
        other = str(tmp_path / "none.npz")
    elif kind == "text":
        (tmp_path / "text.npz").write_text("no archive")
        other = str(tmp_path / "text.npz")
    elif kind == "layers":
        other = str(tmp_path / "layers.npz")
        firing.save_counts(FiringCounts({"b": np.array([1])}, 4), other)
    elif kind == "empty":
        (tmp_path / "folder").mkdir()
        other = str(tmp_path / "folder")
    elif kind == "nan":
        more = ["--fail-above", "nan"]
    else:
        other = str(tmp_path / "above.npz")
        np.savez(other, **{"sn.0": np.array([9]), "__observations__": 4})
    path = tmp_path / "card.json"
    assert cli.main(["compare", one, other, "--json", str(path), *more]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert not path.exists()


def test_bad_options_exit_with_2(files):
    for options in (["--fail-on", "nothing"], ["--fail-above", "x"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["compare", *files, *options])
        assert stop.value.code == 2
