"""CIFAR-10: the folder and the archive are read alike, and what is wrong with either is named."""

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixgrad.errors import DataError, FixgradError, UsageError
from fixgrad.train.data import Augment, cifar10, open_data
from fixgrad.train.data.cifar10 import ARCHIVE, CLASSES, FOLDER, META_FILE, TEST_FILE, TRAIN_FILES

IMAGES = 20
Content = dict[object, object]


@pytest.fixture(autouse=True)
def small_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release has 10,000 images a file; these tests make do with 20, but for the slow one."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(cifar10, "IMAGES_PER_FILE", IMAGES)


def contents(count: int = IMAGES) -> dict[str, Content]:
    """What the files of a release hold, random."""
    generator = np.random.default_rng(0)
    files: dict[str, Content] = {META_FILE: {b"label_names": [name.encode() for name in CLASSES]}}
    for name in (*TRAIN_FILES, TEST_FILE):
        pixels = generator.integers(0, 256, (count, 3072), np.uint8)
        labels = generator.integers(0, 10, count).tolist()
        files[name] = {b"batch_label": name.encode(), b"labels": labels, b"data": pixels, b"filenames": []}
    return files


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder in which the release was unpacked."""
    (tmp_path / FOLDER).mkdir()
    for name, content in contents().items():
        (tmp_path / FOLDER / name).write_bytes(pickle.dumps(content, protocol=2))
    return tmp_path


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pickled(prefix: str = f"{FOLDER}/") -> dict[str, bytes]:
    return {prefix + name: pickle.dumps(content, protocol=2) for name, content in contents().items()}


def change(release: Path, name: str, edit: Callable[[Content], object]) -> None:
    """Edit what one file holds."""
    content = contents()[name]
    edit(content)
    (release / FOLDER / name).write_bytes(pickle.dumps(content, protocol=2))


def refusal(path: Path, kind: type[FixgradError] = DataError) -> str:
    """The message with which a data folder is refused: one line that names the folder."""
    with pytest.raises(kind) as caught:
        open_data("cifar10", path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_the_images_and_labels_are_those_of_the_files(release: Path) -> None:
    source = open_data("cifar10", release)
    expected = contents()
    pixels = np.concatenate([expected[name][b"data"] for name in TRAIN_FILES])
    labels = np.concatenate([expected[name][b"labels"] for name in TRAIN_FILES])
    assert np.array_equal(source.train.images.reshape(-1, 3072), pixels)
    assert np.array_equal(source.train.labels, labels)
    assert np.array_equal(source.test.images.reshape(-1, 3072), expected[TEST_FILE][b"data"])
    assert source.test.labels.tolist() == expected[TEST_FILE][b"labels"]
    assert source.shape == (3, 32, 32)
    assert source.train.class_names == CLASSES
    assert source.augment == Augment(pad=4, flip=True)
    first = source.test_batches(1)[0].codes[0]
    assert np.array_equal(
        first, np.clip(source.test.images[0] - np.array([125, 123, 114])[:, None, None], -127, 127)
    )


def test_folder_parent_and_archive_are_the_same_set(release: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    archive = write_archive(elsewhere / ARCHIVE, pickled())
    renamed = write_archive(tmp_path / "renamed", pickled())
    places = (release, release / FOLDER, elsewhere, archive, renamed)
    assert len({open_data("cifar10", place).train.fingerprint() for place in places}) == 1


def test_keys_may_be_text_and_the_names_may_be_absent(release: Path) -> None:
    before = open_data("cifar10", release).train.fingerprint()
    for name, content in contents().items():
        text = {key.decode(): value for key, value in content.items()}
        (release / FOLDER / name).write_bytes(pickle.dumps(text, protocol=4))
    (release / FOLDER / META_FILE).unlink()
    source = open_data("cifar10", release)
    assert source.train.fingerprint() == before
    assert source.train.class_names == CLASSES


def test_a_path_is_needed() -> None:
    with pytest.raises(
        UsageError, match=r"cifar10 needs --data-dir: download .*cifar-10-python\.tar\.gz.* from https"
    ):
        open_data("cifar10")


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert "does not exist: download" in refusal(tmp_path / "nowhere", UsageError)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    assert f"holds neither {FOLDER}/data_batch_1 nor {ARCHIVE}: download" in refusal(tmp_path, UsageError)


def test_the_binary_version_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(b"x")
    assert "holds the binary version" in refusal(tmp_path, UsageError)


@pytest.mark.parametrize("name", [*TRAIN_FILES, TEST_FILE])
def test_a_missing_file_is_named(release: Path, name: str) -> None:
    (release / FOLDER / name).unlink()
    message = refusal(release)
    assert f"{FOLDER}/{name} is missing" in message
    assert f"unpack {ARCHIVE} again" in message


@pytest.mark.parametrize("name", [TRAIN_FILES[0], TEST_FILE, META_FILE])
def test_a_truncated_file_is_named(release: Path, name: str) -> None:
    path = release / FOLDER / name
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{FOLDER}/{name} is not a complete pickle" in refusal(release)


def test_an_empty_file(release: Path) -> None:
    (release / FOLDER / "data_batch_2").write_bytes(b"")
    assert "data_batch_2 is not a complete pickle" in refusal(release)


def test_a_folder_in_place_of_a_file(release: Path) -> None:
    (release / FOLDER / "data_batch_2").unlink()
    (release / FOLDER / "data_batch_2").mkdir()
    assert "data_batch_2 is missing" in refusal(release)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(release: Path) -> None:
    (release / FOLDER / "data_batch_2").chmod(0)
    assert "data_batch_2 cannot be read (Permission denied)" in refusal(release)


def test_a_file_that_is_far_too_long_is_not_read(release: Path) -> None:
    with (release / FOLDER / "data_batch_2").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: takes no room on the disk
    assert "data_batch_2 has 1099511627776 bytes, expected about 31 million" in refusal(release)


WRONG: list[tuple[Callable[[Content], object], str]] = [
    (lambda c: c.pop(b"data"), "has no entry 'data', so it is not a file of the python version"),
    (lambda c: c.pop(b"labels"), "has no entry 'labels'"),
    (lambda c: c.update({b"data": c[b"data"][:-1]}), f"data is [19, 3072], expected uint8 [{IMAGES}, 3072]"),
    (lambda c: c.update({b"data": c[b"data"].reshape(-1, 3, 32, 32)}), "data is [20, 3, 32, 32], expected"),
    (
        lambda c: c.update({b"data": c[b"data"].astype(np.float32)}),
        "holds an array of type 'f4', expected u1",
    ),
    (lambda c: c.update({b"data": [1, 2]}), "data is a list, expected"),
    (lambda c: c.update({b"data": c[b"data"].tobytes()}), "data is a bytes, expected"),
    (lambda c: c[b"labels"].pop(), f"19 labels, expected a list of {IMAGES}"),
    (lambda c: c[b"labels"].append(0), f"21 labels, expected a list of {IMAGES}"),
    (lambda c: c.update({b"labels": None}), "labels is a NoneType, expected a list"),
    (lambda c: c[b"labels"].__setitem__(7, 10), "label 7 is 10, expected 0 to 9"),
    (lambda c: c[b"labels"].__setitem__(0, -1), "label 0 is -1, expected 0 to 9"),
    (lambda c: c[b"labels"].__setitem__(3, 1.0), "label 3 is 1.0, expected 0 to 9"),
    (lambda c: c[b"labels"].__setitem__(3, "x" * 999), f"label 3 is '{'x' * 39}, expected 0 to 9"),
]


@pytest.mark.parametrize(("edit", "message"), WRONG, ids=[message[:40] for _edit, message in WRONG])
@pytest.mark.parametrize("name", [TRAIN_FILES[4], TEST_FILE])
def test_contents_that_are_not_those_of_cifar10(
    release: Path, name: str, edit: Callable[[Content], object], message: str
) -> None:
    change(release, name, edit)
    found = refusal(release)
    assert message in found
    assert f"{FOLDER}/{name}" in found


@pytest.mark.parametrize("names", [[b"one"], None, [b"x"] * 11])
def test_class_names_must_be_ten(release: Path, names: object) -> None:
    change(release, META_FILE, lambda content: content.update({b"label_names": names}))
    assert f"{META_FILE}: label_names is {names!r:.80}, expected 10 names" in refusal(release)


def test_a_pickle_of_something_else(release: Path) -> None:
    (release / FOLDER / TEST_FILE).write_bytes(pickle.dumps([1, 2, 3], protocol=2))
    assert f"{TEST_FILE} holds a list, expected a dictionary" in refusal(release)


def test_a_malicious_file_is_refused_and_not_run(release: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {victim}",)

    change(release, "data_batch_3", lambda content: content.update({b"data": Malicious()}))
    assert "data_batch_3 asks for posix.system" in refusal(release)
    assert not victim.exists()


class TestArchive:
    def test_not_an_archive(self, tmp_path: Path) -> None:
        path = tmp_path / ARCHIVE
        path.write_bytes(b"<html>404 Not Found</html>")
        assert "is not a complete tar archive" in refusal(path)

    @pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
    def test_cut_short(self, tmp_path: Path, keep: float) -> None:
        path = write_archive(tmp_path / ARCHIVE, pickled())
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * keep)])
        assert "is not a complete tar archive" in refusal(path)

    def test_damaged_inside(self, tmp_path: Path) -> None:
        path = write_archive(tmp_path / ARCHIVE, pickled())
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        path.write_bytes(whole)
        refusal(path)

    @pytest.mark.parametrize("name", [TRAIN_FILES[2], TEST_FILE])
    def test_a_missing_member_is_named(self, tmp_path: Path, name: str) -> None:
        members = pickled()
        del members[f"{FOLDER}/{name}"]
        path = write_archive(tmp_path / ARCHIVE, members)
        assert f"does not hold {FOLDER}/{name}, so it is not {ARCHIVE}" in refusal(path)

    @pytest.mark.parametrize(
        "prefix", ["../", "/", f"../{FOLDER}/", f"/{FOLDER}/", f"{FOLDER}/../", "other/"]
    )
    def test_members_elsewhere_are_neither_used_nor_written(self, tmp_path: Path, prefix: str) -> None:
        path = write_archive(tmp_path / ARCHIVE, pickled(prefix))
        assert f"does not hold {FOLDER}/data_batch_1" in refusal(path)
        assert list(tmp_path.iterdir()) == [path]
        assert not (tmp_path.parent / "data_batch_1").exists()

    def test_a_member_twice(self, tmp_path: Path) -> None:
        path = tmp_path / ARCHIVE
        with tarfile.open(path, "w:gz") as archive:
            for name, content in [*pickled().items(), (f"{FOLDER}/data_batch_1", b"other")]:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        assert f"holds {FOLDER}/data_batch_1 twice" in refusal(path)

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
    def test_a_member_that_is_no_file(self, tmp_path: Path, kind: bytes) -> None:
        members = pickled()
        del members[f"{FOLDER}/data_batch_1"]
        path = tmp_path / ARCHIVE
        with tarfile.open(path, "w:gz") as archive:
            link = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
            link.type, link.linkname = kind, "/etc/passwd"
            archive.addfile(link)
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        assert f"{FOLDER}/data_batch_1 is not an ordinary file" in refusal(path)

    def test_a_member_that_is_far_too_long_is_not_read(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(cifar10, "MAX_PICKLE_BYTES", 1000)
        path = write_archive(tmp_path / ARCHIVE, pickled())
        assert "is not an ordinary file of about 31 million bytes" in refusal(path)


@pytest.mark.slow
def test_the_full_size(tmp_path: Path) -> None:
    for name, content in contents(10_000).items():
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
    source = open_data("cifar10", tmp_path)
    assert (len(source.train), len(source.test)) == (50_000, 10_000)
    seen = [batch.indices for batch in source.train_batches(128, seed=1, epoch=0)]
    assert len(np.unique(np.concatenate(seen))) == 390 * 128
