"""What lies in a source's folder: read, counted, or the operating system's."""

import pytest

from heartseg_jax.data.sources.listing import VOLUMES, by_stem, list_files, natural_key, not_read
from heartseg_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in (
        *(
            "a.nii",
            "b.nii.gz",
            "C.NII.GZ",
            "d.nii.bz2",
            "e.nrrd",
            "f.mha",
            "README",
            "1.Meier",
            "in/g.nii",
            "in/deep/h.nrrd",
        ),
        *(".DS_Store", "._a.nii", "Thumbs.db", "desktop.ini", "__MACOSX/a.nii", ".git/x.nii"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "k.nii").symlink_to("nowhere")
    return tmp_path


def test_what_is_read_and_what_is_counted(folder):
    listed = list_files(folder, VOLUMES)
    assert [path.name for path in listed.files] == ["C.NII.GZ", "a.nii", "b.nii.gz", "d.nii.bz2"]
    assert listed.others == {
        ".nrrd": 1,
        ".mha": 1,
        "of other formats": 2,
        "in subfolders": 2,
        "links that lead nowhere": 1,
    }
    (warning,) = not_read(listed, listed)
    assert warning.startswith("14 files")
    assert "eier" not in warning
    assert sorted(by_stem(listed)) == ["C", "a", "b", "d"]


def test_at_any_depth(folder):
    (folder / "linked").symlink_to(folder / "in")
    listed = list_files(folder, VOLUMES, deep=True)
    assert [path.name for path in listed.files] == ["C.NII.GZ", "a.nii", "b.nii.gz", "d.nii.bz2", "g.nii"]
    assert listed.others[".nrrd"] == 2
    assert listed.others["linked folders"] == 1


def test_nothing_to_say(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    assert not_read(list_files(tmp_path, VOLUMES), list_files(tmp_path / "none", VOLUMES)) == []


def test_one_name_twice(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.nii and .*a\.nii\.gz have the same name"):
        by_stem(list_files(tmp_path, VOLUMES))


def test_natural_order():
    assert sorted(["s10", "s9", "s9b", "s", "s09"], key=natural_key) == ["s", "s09", "s9", "s9b", "s10"]
