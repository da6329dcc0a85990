"""Which files a folder holds."""

from merlin.data.tree import walk


def _write(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_links_are_followed_once_and_loops_end(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    _write(data / "a/1")
    _write(elsewhere / "2")
    (data / "linked").symlink_to(elsewhere)
    (data / "again").symlink_to(elsewhere)
    (data / "loop").symlink_to(".")
    (data / "a/loop").symlink_to(data)
    (data / "file").symlink_to(data / "a/1")
    (data / "gone").symlink_to("nowhere")
    found = walk(data)
    assert [str(p.relative_to(data)) for p in found.files] == ["a/1", "again/2"]
    assert found.left_out == {
        "links to what stands elsewhere in the folder": 4,
        "broken links and special files": 1,
    }
    assert len(found.outside) == 2


def test_what_systems_and_burners_leave_is_counted(tmp_path):
    for name in ("IM1", "._IM1", ".DS_Store", "DICOMDIR", "sub/Thumbs.db", "__MACOSX/IM1"):
        _write(tmp_path / name)
    found = walk(tmp_path)
    assert [p.name for p in found.files] == ["IM1"]
    assert found.left_out == {"macOS doubles": 2, "hidden files": 1, "files of a CD or system": 2}


def test_a_link_into_the_folder_itself_is_entered(tmp_path):
    _write(tmp_path / "store/1")
    (tmp_path / "data").symlink_to(tmp_path / "store")
    found = walk(tmp_path / "data")
    assert [p.name for p in found.files] == ["1"]
    assert not found.outside
