import dataclasses
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import cifar
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data

ROOT = Path(__file__).parents[3]
STATED = {
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
}


def random_images(shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(1, 256, shape).astype(dtype)


@pytest.fixture
def cifar10_dir():
    return cifar.data_dir("cifar10")


def write_info(root, name, file_format, version="3.0.2", **splits):
    folder = root / name / version
    folder.mkdir(parents=True)
    info = {
        "name": name,
        "version": version,
        "fileFormat": file_format,
        "splits": [
            {
                "name": split,
                "shardLengths": [str(n)],
                "numBytes": "1",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
            for split, n in splits.items()
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny cifar100 as TFDS prepares it, with PNG inside; needs no data."""
    pytest.importorskip("array_record", reason="array_record has no wheel here")
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from PIL import Image

    n, root = 1003, tmp_path_factory.mktemp("tfds")
    images, labels = random_images((n, 32, 32, 3)), np.arange(n) % 100
    folder = write_info(root, "cifar100", "array_record", train=n)
    # An interrupted preparation and an older version in a format we cannot read.
    (folder.parent / "3.0.2.incompleteXYZ").mkdir()
    (folder.parent / "3.0.2.incompleteXYZ" / "dataset_info.json").write_text("{")
    write_info(root, "cifar100", "tfrecord", version="3.0.1", train=n)
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(num_classes=100),
            "coarse_label": tfds.features.ClassLabel(num_classes=20),
        }
    )
    features.save_config(folder)
    shard = folder / "cifar100-train.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        png.seek(0)
        record = {"id": f"{i}", "image": png, "label": int(label), "coarse_label": 0}
        writer.write(features.serialize_example(record))
    writer.close()
    return root, images, labels


# Digits


def digit_bytes():
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Half up by integers, from the formula round(v * 255 / 16).
    return (digits.images.astype(int) * 510 + 16) // 32, digits.target


def test_digits_splits_are_disjoint_and_cover_all():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert len(train) + len(test) == 1797

    def lines(images, labels):
        return sorted(
            (int(label), image.astype(np.uint8).tobytes())
            for image, label in zip(images, labels, strict=True)
        )

    everything = lines(*digit_bytes())
    assert len(set(everything)) == len(everything)  # so that equal means disjoint too
    both = lines(train.images, train.labels) + lines(test.images, test.labels)
    assert sorted(both) == everything


def test_digits_are_stratified_and_shuffled():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    in_train, in_test = np.bincount(train.labels), np.bincount(test.labels)
    assert np.abs(in_test - (in_train + in_test) / 5).max() <= 1
    # Sorted by class, or in the file's cycle 0, 1, ... 9, a prefix would not be fair.
    for dataset in (train, test):
        assert np.bincount(dataset.labels[:200], minlength=10).min() > 5
        assert (np.diff(dataset.labels) % 10 == 1).mean() < 0.25


def test_digits_are_the_same_each_time_and_limit_is_a_prefix():
    whole, again = data.load("digits", "train"), data.load("digits", "train")
    first = data.load("digits", "train", limit=100)
    np.testing.assert_array_equal(whole.images, again.images)
    np.testing.assert_array_equal(whole.images[:100], first.images)
    np.testing.assert_array_equal(whole.labels[:100], first.labels)
    np.testing.assert_array_equal(whole.mean, first.mean)
    np.testing.assert_array_equal(whole.std, first.std)


def test_digits_normalisation_is_the_training_splits():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    pixels = train.images.astype(np.float64) / 255
    np.testing.assert_allclose(train.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(train.std, pixels.std((0, 1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(train.mean, test.mean)
    np.testing.assert_array_equal(train.std, test.std)
    assert train.mean.dtype == train.std.dtype == np.float32
    assert (train.num_classes, train.name) == (10, "digits")


def test_digits_without_sklearn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'snnjax\[experiments\]'"):
        data.load("digits", "train")


# CIFAR


@pytest.mark.parametrize("limit", [None, 1000, 5])
def test_cifar_reads_what_tfds_holds(prepared, limit):
    root, images, labels = prepared
    dataset = data.load("cifar100", "train", data_dir=root, limit=limit)
    np.testing.assert_array_equal(dataset.images, images[:limit])
    np.testing.assert_array_equal(dataset.labels, labels[:limit])
    assert dataset.labels.dtype == np.int32
    assert (dataset.num_classes, dataset.name) == (100, "cifar100")
    np.testing.assert_allclose(dataset.mean, STATED["cifar100"][0])
    np.testing.assert_allclose(dataset.std, STATED["cifar100"][1])


def test_cifar_directory_comes_from_the_environment(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared[0]))
    assert len(data.load("cifar100", "train", limit=2)) == 2


def test_cifar_limit_above_the_split(prepared):
    with pytest.raises(ValueError, match=r"expected 1 to 1003.*got 1004"):
        data.load("cifar100", "train", data_dir=prepared[0], limit=1004)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_statistics(name):
    dataset = data.load(name, "train", data_dir=cifar.data_dir(name), limit=2000)
    pixels = dataset.images / 255.0
    mean, std = STATED[name]
    np.testing.assert_allclose(dataset.mean, mean)
    np.testing.assert_allclose(dataset.std, std)
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), mean, atol=0.01)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), std, atol=0.01)
    per_class = np.bincount(dataset.labels, minlength=dataset.num_classes)
    assert len(per_class) == dataset.num_classes
    assert per_class.min() > 0


def test_cifar_limit_is_a_prefix(cifar10_dir):
    many = data.load("cifar10", "test", data_dir=cifar10_dir, limit=300)
    few = data.load("cifar10", "test", data_dir=cifar10_dir, limit=50)
    np.testing.assert_array_equal(many.images[:50], few.images)
    np.testing.assert_array_equal(many.labels[:50], few.labels)


@pytest.mark.slow
def test_cifar_needs_no_tensorflow(prepared):
    program = (
        "import sys; from snnjax import data; "
        "light = 'tensorflow_datasets' not in sys.modules; "
        f"d = data.load('cifar100', 'train', data_dir={str(prepared[0])!r}, limit=3); "
        "print(len(d), light, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.split() == ["3", "True", "False"]
    assert done.stderr == ""


def test_missing_cifar_fails_at_once_with_the_command(tmp_path):
    program = f"""
import sys, time
from snnjax import data
start = time.perf_counter()
try:
    data.load("cifar10", "train", data_dir={str(tmp_path)!r})
except ValueError as error:
    print(time.perf_counter() - start)
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    seconds, message = done.stdout.split("\n", 1)
    assert float(seconds) < 1
    assert "pip install tensorflow" in message
    command = message.strip().split("\n")[-1]
    prefix, suffix = 'python -c "', '"'
    assert command.startswith(prefix)
    assert command.endswith(suffix)
    command = command.removeprefix(prefix).removesuffix(suffix)
    compile(command, "the command", "exec")
    assert f"tfds.builder('cifar10', data_dir={str(tmp_path)!r}" in command
    assert "file_format='array_record'" in command
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_valid_for_tfds(tmp_path):
    import tensorflow_datasets as tfds

    with pytest.raises(ValueError, match="expected TFDS data") as caught:
        data.load("cifar10", "train", data_dir=tmp_path)
    command = str(caught.value).split("tfds; ")[1].rstrip('"')
    builder, called = command.rsplit(".", 1)
    assert called == "download_and_prepare()"
    made = eval(builder, {"tfds": tfds})
    assert made.info.file_format.value == "array_record"
    # It writes where load will look.
    assert Path(made.data_dir).parent == tmp_path / "cifar10"
    assert list(tmp_path.glob("cifar10/[0-9].[0-9].[0-9]")) == []
    assert len(Path(made.data_dir).name) == len("3.0.2")


@pytest.mark.parametrize("file_format", ["tfrecord", "parquet", None])
def test_cifar_in_another_format(tmp_path, file_format):
    folder = write_info(tmp_path, "cifar10", file_format or "", train=1)
    if file_format is None:  # TFDS wrote no such field once
        (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match="array_record") as caught:
        data.load("cifar10", "train", data_dir=tmp_path)
    assert f"got {file_format or 'tfrecord'} in {folder}" in str(caught.value)
    assert "delete that" in str(caught.value)
    assert "download_and_prepare()" in str(caught.value)


# Arrays


def test_from_arrays_statistics_match_numpy():
    images = random_images((7, 5, 3, 4))
    images[..., 2] = 77
    dataset = data.from_arrays(images, np.arange(7), num_classes=9, name="mine")
    pixels = images.astype(np.float64) / 255
    expected = pixels.std((0, 1, 2))
    expected[2] = 1
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, expected, rtol=1e-6)
    assert (len(dataset), dataset.num_classes, dataset.name) == (7, 9, "mine")
    assert dataset.labels.dtype == np.int32


@pytest.mark.parametrize("kind", [list, jnp.asarray, np.uint8])
def test_from_arrays_takes_any_integers(kind):
    dataset = data.from_arrays(random_images((3, 2, 2, 1)), kind(np.array([0, 4, 1])))
    assert dataset.labels.tolist() == [0, 4, 1]
    assert dataset.labels.dtype == np.int32
    assert dataset.num_classes == 5


def test_a_test_set_takes_its_training_sets_normalisation():
    train = data.from_arrays(random_images((4, 3, 3, 2), seed=1), [0, 1, 2, 3])
    test = data.from_arrays(random_images((2, 3, 3, 2), seed=2), [0, 1], num_classes=4)
    test = dataclasses.replace(test, mean=train.mean, std=train.std)
    np.testing.assert_array_equal(test.mean, train.mean)


@pytest.mark.parametrize(
    "part", [slice(1, 5), slice(-2, None), [4, 0, 4, -1], np.arange(7) % 3 == 0]
)
def test_a_subset_has_the_numpy_arrays_part(part):
    frames = np.arange(7 * 3 * 2, dtype=np.uint8).reshape(7, 3, 2)
    whole = data.from_arrays(
        frames, np.arange(7), lengths=np.array([1, 2, 3, 1, 2, 3, 1])
    )
    some = whole.subset(part)
    for name in ("images", "labels", "lengths"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[part])
    assert (some.num_classes, some.name) == (7, "arrays")
    np.testing.assert_array_equal(some.std, whole.std)


@pytest.mark.parametrize(
    "part", [[7], [-8], 3, [0.0, 1.0], np.ones(6, bool), [[0], [1]], [], slice(0), "a"]
)
def test_a_subset_that_is_none_is_refused(part):
    whole = data.from_arrays(np.zeros((7, 3, 2), np.uint8), np.arange(7))
    with pytest.raises(ValueError, match=r"part must"):
        whole.subset(part)


def test_npz_round_trip(tmp_path):
    images, labels = random_images((6, 4, 5, 3)), np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    dataset = data.from_npz(tmp_path / "mine.npz")
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert (dataset.num_classes, dataset.name) == (3, "mine")


# On the device


def test_normalize_is_the_formula():
    images = random_images((2, 3, 4, 5, 3))  # [T, B, H, W, C]
    mean, std = np.float32([0.1, 0.5, 0.9]), np.float32([0.2, 0.3, 1.4])
    expected = (images / 255.0 - mean.astype(float)) / std.astype(float)
    for function in (data.normalize, jax.jit(data.normalize)):
        result = function(images, mean, std)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_normalized_data_has_mean_0_and_deviation_1():
    train = data.load("digits", "train")
    result = np.asarray(data.normalize(train.images, train.mean, train.std), float)
    assert abs(result.mean()) < 1e-5
    assert abs(result.std() - 1) < 1e-5


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_augment_off_is_the_identity(dtype):
    images = random_images((3, 4, 5, 2), dtype=dtype)
    result = data.augment(jax.random.key(0), images, pad=0, flip=False)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, images)


def windows(image, pad):
    """Every crop of the padded image: {(row, column): crop}."""
    h, w, c = image.shape
    padded = np.zeros((h + 2 * pad, w + 2 * pad, c), image.dtype)
    padded[pad : pad + h, pad : pad + w] = image
    moves = range(2 * pad + 1)
    return {(i, j): padded[i : i + h, j : j + w] for i in moves for j in moves}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("flip", [True, False])
def test_augmented_images_are_windows(dtype, flip):
    images, pad = random_images((400, 6, 7, 3), dtype=dtype), 2
    result = np.asarray(data.augment(jax.random.key(1), images, pad=pad, flip=flip))
    assert result.dtype == dtype
    assert result.shape == images.shape
    found = []
    for image, augmented in zip(images, result, strict=True):
        matches = [
            (*corner, mirrored)
            for corner, window in windows(image, pad).items()
            for mirrored in (False, True)
            if (augmented == (window[:, ::-1] if mirrored else window)).all()
        ]
        assert len(matches) == 1
        found += matches
    rows, columns, mirrored = np.array(found).T
    # Uniform and independent: 400 draws of 5 x 5 positions, of a coin.
    counts = np.zeros((5, 5), int)
    np.add.at(counts, (rows, columns), 1)
    assert counts.min() > 2
    assert counts.max() < 40
    assert abs(mirrored.mean() - 0.5) < 0.1 if flip else not mirrored.any()


def test_augment_is_a_function_of_the_key():
    images = random_images((8, 8, 8, 1))
    first = data.augment(jax.random.key(3), images)
    np.testing.assert_array_equal(first, data.augment(jax.random.key(3), images))
    np.testing.assert_array_equal(
        first, jax.jit(data.augment)(jax.random.key(3), images)
    )
    np.testing.assert_array_equal(first, data.augment(jax.random.PRNGKey(3), images))
    assert (first != data.augment(jax.random.key(4), images)).any()


@pytest.mark.slow
def test_a_whole_cifar_split_loads_in_seconds(cifar10_dir):
    start = time.perf_counter()
    test = data.load("cifar10", "test", data_dir=cifar10_dir)
    assert time.perf_counter() - start < 15  # 1.7 s on two cores
    assert test.images.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(test.labels), 1000)


@pytest.mark.slow
def test_crops_are_the_same_under_x64():
    images = random_images((5, 8, 8, 1))
    first = data.augment(jax.random.key(3), images)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(first, data.augment(jax.random.key(3), images))


def test_a_damaged_npz_is_told(tmp_path):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, images=random_images((40, 8, 8, 1)), labels=np.arange(40))
    whole = path.read_bytes()
    path.write_bytes(whole[:90] + bytes(40) + whole[130:])
    with pytest.raises(ValueError, match=r"set\.npz: the file is damaged"):
        data.from_npz(path)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [False, True])
def test_cutout_blackens_one_square_of_each_image(frames):
    shape = (64, 3, 12, 10, 2) if frames else (64, 12, 10, 2)
    images = np.full(shape, 7, np.uint8)
    options = dict(pad=0, flip=False)
    found = np.asarray(data.augment(jax.random.key(0), images, cutout=4, **options))
    black = (found == 0).reshape(64, -1, 12, 10, 2)
    np.testing.assert_array_equal(black, black[:, :1, :, :, :1] & np.ones_like(black))
    sizes = black[:, 0, :, :, 0].any(2).sum(1), black[:, 0, :, :, 0].any(1).sum(1)
    for size in sizes:
        assert size.min() >= 2  # a pixel within the image is the middle
        assert size.max() == 4
    assert len(np.unique(black[:, 0, :, :, 0], axis=0)) > 30
    halves = [
        np.asarray(
            data.augment(jax.random.key(0), part, cutout=4, part=(i, 2), **options)
        )
        for i, part in enumerate(np.split(images, 2))
    ]
    np.testing.assert_array_equal(np.concatenate(halves), found)
