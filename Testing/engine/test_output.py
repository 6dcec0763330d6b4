"""The output folder: everything or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nexusinr.errors import InputError
from nexusinr.inference.output import OutputFolder


def test_files_appear_when_they_are_published(tmp_path):
    with OutputFolder(tmp_path / "a" / "b") as folder:
        folder.file("one.txt").write_text("1")
        folder.write_json("two.json", {"x": [1.5, None, "µ"]})
        assert not (tmp_path / "a" / "b" / "one.txt").exists()
        published = folder.publish()
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == {"one.txt", "two.json"}
    assert published["one.txt"].read_text() == "1"
    assert json.loads(published["two.json"].read_text()) == {"x": [1.5, None, "µ"]}


@pytest.mark.parametrize("before", [False, True])
def test_a_failure_leaves_nothing(before, tmp_path):
    path = tmp_path / "a" / "b"
    if before:
        path.mkdir(parents=True)
        (path / "one.txt").write_text("old")
    with pytest.raises(TypeError, match="not JSON"), OutputFolder(path) as folder:
        folder.write_json("two.json", {"x": set()})
    if before:
        assert [p.name for p in path.iterdir()] == ["one.txt"]
        assert (path / "one.txt").read_text() == "old"
    else:
        assert list(tmp_path.iterdir()) == []


def test_what_publishing_replaces_goes(tmp_path):
    for name in ("old.txt", "kept.txt", "mine.txt"):
        (tmp_path / name).write_text("old")
    with OutputFolder(tmp_path) as folder:
        folder.file("kept.txt").write_text("new")
        folder.publish(instead_of=("old.txt", "kept.txt", "never.txt"))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "kept.txt": "new",
        "mine.txt": "old",
    }


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious.txt").write_text("mine")
    for names in (("one", "two"), ("three",)):
        with OutputFolder(tmp_path) as folder:
            folder.file("many").mkdir()
            for name in names:
                (folder.file("many") / name).write_text(name)
            assert folder.publish() == {"many": tmp_path / "many"}
        assert sorted(p.name for p in (tmp_path / "many").iterdir()) == sorted(names)
    (tmp_path / "many" / "link").symlink_to(tmp_path / "elsewhere")
    with OutputFolder(tmp_path) as folder:
        folder.publish(instead_of=("many",))
    assert [p.name for p in tmp_path.iterdir()] == ["elsewhere"]
    assert (tmp_path / "elsewhere" / "precious.txt").read_text() == "mine"


def test_errors_of_the_disk_name_the_folder(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(InputError, match=r"out: cannot write there \(no space"):  # noqa: SIM117
        with OutputFolder(path):
            raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["file/out", "file", "/proc/x"])
def test_folders_that_cannot_be_made(path, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot write there"), OutputFolder(tmp_path / path):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_everything_can_be_discarded_at_once(tmp_path):
    first, second = OutputFolder(tmp_path / "a"), OutputFolder(tmp_path / "b" / "c")
    with first, second:
        first.file("x").write_text("x")
        OutputFolder.discard_all()
        assert list(tmp_path.iterdir()) == []
    assert list(Path(tmp_path).iterdir()) == []
