import pickle
import zipfile

import numpy as np
import pytest

from snnjax import firing
from snnjax.firing import FiringCounts


def counts(**more):
    rng = np.random.default_rng(0)
    groups = {
        "layer1.0.sn1": rng.integers(0, 9, (4, 3, 2)),
        "fc": rng.integers(0, 9, (4, 1)),
    }
    spikes = {name: each.sum(0) for name, each in groups.items()}
    return FiringCounts(spikes, 36, groups, np.array([9, 8, 9, 10]), **more)


@pytest.mark.parametrize("inputs_id", [None, "test set", 7])
def test_a_file_gives_the_counts_back(tmp_path, inputs_id):
    made = counts(inputs_id=inputs_id)
    firing.save_counts(made, tmp_path / "a.npz")
    assert firing.load_counts(tmp_path / "a.npz") == made
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_numpy_reads_and_writes_the_format(tmp_path):
    made = counts(inputs_id="i")
    firing.save_counts(made, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    assert arrays["__observations__"] == 36
    np.testing.assert_array_equal(arrays["__groups__.fc"], made.groups["fc"])
    np.savez(tmp_path / "b.npz", **arrays)
    assert firing.load_counts(tmp_path / "b.npz") == made


def test_whole_numbers_in_floating_point_are_taken(tmp_path):
    np.savez(tmp_path / "a.npz", sn=np.array([1.0, 2.0]), __observations__=4.0)
    assert firing.load_counts(tmp_path / "a.npz").spikes["sn"].tolist() == [1, 2]


BAD = {
    "no observations": {"sn": [1]},
    "counts above": {"sn": [5], "__observations__": 4},
    "negative": {"sn": [-1], "__observations__": 4},
    "fractional": {"sn": [0.5], "__observations__": 4},
    "not a number": {"sn": [np.nan], "__observations__": 4},
    "text": {"sn": ["a"], "__observations__": 4},
    "no layer": {"__observations__": 4},
    "no neuron": {"sn": np.zeros(0, int), "__observations__": 4},
    "no observation": {"sn": [0], "__observations__": 0},
    "two observations": {"sn": [0], "__observations__": [4, 4]},
    "groups of others": {"sn": [1], "__observations__": 4, "__groups__.b": [[1]]},
    "other sums": {"sn": [1], "__observations__": 4, "__groups__.sn": [[1], [1]]},
    "sizes alone": {"sn": [1], "__observations__": 4, "__group_observations__": [4]},
    "unknown field": {"sn": [1], "__observations__": 4, "__more__": 1},
    "identity of arrays": {"sn": [1], "__observations__": 4, "__inputs_id__": [1, 2]},
}


@pytest.mark.parametrize("arrays", BAD.values(), ids=BAD)
def test_bad_files_give_one_sentence_with_the_path(tmp_path, arrays):
    path = tmp_path / "bad.npz"
    np.savez(path, **{k: np.asarray(v) for k, v in arrays.items()})
    with pytest.raises(ValueError, match=r"bad\.npz: .+") as error:
        firing.load_counts(path)
    assert "\n" not in str(error.value)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_pickles_are_not_executed(tmp_path):
    path = tmp_path / "bad.npz"
    objects = np.empty(1, object)
    objects[0] = Harmful()
    np.savez(path, sn=objects, __observations__=4, allow_pickle=True)
    with pytest.raises(ValueError, match=r"bad\.npz"):
        firing.load_counts(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sn.npy", pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match=r"bad\.npz"):
        firing.load_counts(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files(tmp_path, share):
    path = tmp_path / "cut.npz"
    firing.save_counts(counts(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"cut\.npz"):
        firing.load_counts(path)


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(ValueError, match=str(path)):
            firing.load_counts(path)


def test_flipped_bytes_are_never_read_as_other_counts(tmp_path):
    made = counts()
    path = tmp_path / "a.npz"
    firing.save_counts(made, path)
    data = path.read_bytes()
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            found = firing.load_counts(path)
        except ValueError:
            continue
        # Fields of the archive that nobody reads, as times and attributes.
        assert found == made


def test_names_that_the_format_keeps(tmp_path):
    bad = FiringCounts({"__observations__": np.array([1])}, 4)
    with pytest.raises(ValueError, match="__observations__"):
        firing.save_counts(bad, tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())
