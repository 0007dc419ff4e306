"""Avalanche's classics: read from small copies in the layout that torchvision expects."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from capacity.recipe.config import TaskStream, load
from capacity.tasks import build_tasks

CLASSICS = ["split-mnist", "permuted-mnist", "rotated-mnist", "split-cifar10", "split-cifar100"]
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


@pytest.fixture
def no_network(monkeypatch):
    """Count the attempts to download, and let each fail as it does without a network."""
    from urllib.error import URLError

    attempts = []

    def refuse(request, *args, **kwargs):
        attempts.append(request)
        print("Downloading")  # noqa: T201 - as older releases of torchvision do
        raise URLError("[Errno -2] Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return attempts


def write_mnist(root, per_class=(6, 3)):
    """Write idx files: image k of class c is all c except pixel (0, k)."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in zip(("train", "t10k"), per_class, strict=True):
        labels = np.tile(np.arange(10, dtype=np.uint8), count)
        images = np.repeat(labels, 784).reshape(-1, 28, 28).copy()
        for k, image in enumerate(images):
            image[0, k % 28] = 255
        size = len(labels)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, size, 28, 28) + images.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, size) + labels.tobytes()
        )
    return root


def write_cifar(root, kind, monkeypatch):
    """Write CIFAR pickles with constant images of the label's brightness."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    classes = 10 if kind is CIFAR10 else 100
    key = "labels" if kind is CIFAR10 else "fine_labels"
    for name, _ in kind.train_list + kind.test_list:
        labels = list(range(classes)) * 2
        data = np.repeat(np.array(labels, dtype=np.uint8), 3072).reshape(-1, 3072)
        (folder / name).write_bytes(pickle.dumps({"data": data, key: labels}))
    meta = {kind.meta["key"]: [f"class {c}" for c in range(classes)]}
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))
    # The small files cannot have the checksums of the real ones.
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(kind, attribute, [[n, None] for n, _ in getattr(kind, attribute)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": None})
    return root


def test_split_mnist_is_read_without_the_network(tmp_path, no_network):
    stream = load("split-mnist", [f"tasks.root={write_mnist(tmp_path)}"]).tasks
    tasks = build_tasks(stream)
    assert tasks.input_shape == (1, 28, 28)
    assert tasks.n_outputs == 10
    assert [task.classes for task in tasks.tasks] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    for task in tasks.tasks:
        assert (len(task.train), len(task.test)) == (12, 6)
        for split in (task.train, task.test):
            # The last pixel shows the label, normalised as Avalanche does it.
            expected = (split.y / 255 - 0.1307) / 0.3081
            torch.testing.assert_close(split.x[:, 0, -1, -1], expected)
    assert no_network == []


def test_split_mnist_with_heads(tmp_path):
    stream = TaskStream(dataset="mnist", heads=True, root=str(write_mnist(tmp_path)))
    tasks = build_tasks(stream).tasks
    assert [task.outputs for task in tasks] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert [task.classes for task in tasks][3] == (6, 7)
    assert all(task.train.y.unique().tolist() == [0, 1] for task in tasks)


@pytest.mark.slow
def test_permuted_mnist_permutes_by_the_seed(tmp_path):
    root = str(write_mnist(tmp_path))

    def build(seed):
        return build_tasks(
            TaskStream(dataset="mnist", scenario="permuted", experiences=3, seed=seed, root=root)
        )

    one, same, other = build(0), build(0), build(2**40 + 1)
    pixels = [task.train.x.flatten(1).T for task in one.tasks]
    assert not torch.equal(pixels[0], pixels[1])
    columns = [sorted(map(tuple, p.tolist())) for p in pixels]
    assert columns[0] == columns[1] == columns[2]
    assert torch.equal(one[2].train.x, same[2].train.x)
    assert not torch.equal(one[2].train.x, other[2].train.x)
    assert one.n_outputs == 10
    assert one[0].outputs is None


@pytest.mark.slow
def test_rotated_mnist_turns_in_equal_steps(tmp_path):
    stream = load("rotated-mnist", [f"tasks.root={write_mnist(tmp_path)}"]).tasks
    tasks = build_tasks(stream).tasks
    assert [task.name for task in tasks][1] == "rotated 22.5 degrees"
    quarter = torch.rot90(tasks[0].test.x, 1, dims=(2, 3))
    torch.testing.assert_close(tasks[-1].test.x, quarter)


def test_samples_are_chosen_in_proportion(tmp_path):
    root = str(write_mnist(tmp_path))
    tasks = build_tasks(TaskStream(dataset="mnist", samples=4, root=root)).tasks
    for task in tasks:
        assert torch.bincount(task.train.y).tolist()[-2:] == [2, 2]
        assert len(task.test) == 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_split_cifar_is_read_without_the_network(tmp_path, monkeypatch, no_network, kind):
    root = write_cifar(tmp_path, kind, monkeypatch)
    name = "split-cifar10" if kind is CIFAR10 else "split-cifar100"
    tasks = build_tasks(load(name, [f"tasks.root={root}"]).tasks)
    assert tasks.input_shape == (3, 32, 32)
    assert tasks.n_outputs == (10 if kind is CIFAR10 else 100)
    assert tasks[1].classes == ((2, 3) if kind is CIFAR10 else tuple(range(10, 20)))
    assert tasks[1].outputs == (None if kind is CIFAR10 else tuple(range(10, 20)))
    mean, std = (0.4914, 0.2023) if kind is CIFAR10 else (0.5071, 0.2673)
    labels = tasks[1].train.y + (0 if kind is CIFAR10 else 10)
    # Random crops of the training transform would put black pixels at the borders.
    torch.testing.assert_close(tasks[1].train.x[:, 0, 0, 0], (labels / 255 - mean) / std)
    assert no_network == []


@pytest.mark.parametrize("name", CLASSICS)
def test_offline_there_is_one_clear_error(tmp_path, no_network, capfd, name):
    root = tmp_path / "not" / "there"
    stream = load(name, [f"tasks.root={root}"]).tasks
    with pytest.raises(ValueError, match="nor downloaded") as caught:
        build_tasks(stream)
    message = str(caught.value)
    assert "\n" not in message
    assert TITLES[stream.dataset] in message
    assert str(root) in message
    assert "tasks.root=DIR" in message
    assert "Name or service not known" in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert no_network, "it should have been tried"
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "not").exists(), "a failed download leaves folders"


def test_offline_error_names_the_default_root(monkeypatch, tmp_path, no_network):
    from avalanche.benchmarks.datasets import dataset_utils

    monkeypatch.setitem(dataset_utils.AVALANCHE_CONFIG, "dataset_location", str(tmp_path))
    with pytest.raises(ValueError, match="MNIST could neither be read from") as caught:
        build_tasks(TaskStream(dataset="mnist"))
    assert str(tmp_path / "mnist") in str(caught.value)


def test_folders_that_were_there_stay(tmp_path, no_network):
    with pytest.raises(ValueError, match="MNIST"):
        build_tasks(TaskStream(dataset="mnist", root=str(tmp_path)))
    assert tmp_path.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_copy_is_one_error_too(tmp_path, no_network):
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    with pytest.raises(ValueError, match=r"MNIST could neither be read from .* tasks\.root=DIR"):
        build_tasks(TaskStream(dataset="mnist", root=str(tmp_path)))
    assert (tmp_path / "MNIST" / "raw").exists()


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (TaskStream(dataset="mnist", experiences=3), "experiences = 3 .*10 classes of mnist"),
        (TaskStream(dataset="cifar100", experiences=7), "experiences = 7 .*100 classes"),
        (TaskStream(dataset="cifar10", scenario="permuted"), "scenario = 'permuted' .*cifar10"),
        (TaskStream(dataset="cifar100", scenario="rotated"), "scenario = 'rotated' .*cifar100"),
    ],
)
def test_what_does_not_exist_is_refused_before_any_data_is_looked_for(stream, message, no_network):
    with pytest.raises(ValueError, match=message):
        build_tasks(stream)
    assert no_network == []


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (TaskStream(dataset="mnist", test_fraction=0.3), "test_fraction = 0.3 is no .*heads, samp"),
        (TaskStream(dataset="cifar10", max_angle=10.0), "max_angle = 10.0 is no option .*cifar10"),
        (TaskStream(root="data"), "root = 'data' is no option of tasks.dataset = 'digits'"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(stream, message, no_network):
    with pytest.raises(ValueError, match=message):
        build_tasks(stream)
    assert no_network == []
