"""Keys of patients by a salt that is the user's own, and the table of who is who."""

import csv
import hashlib
import hmac
import stat

import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.privacy import config_folder, keep_table, patient_key, read_salt


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "cfg"))
    return tmp_path / "cfg" / "heartseg_jax"


def test_the_salt_is_drawn_once_and_is_the_users_alone(own):
    salt = read_salt()
    assert len(salt) == 32
    assert read_salt() == salt
    assert stat.S_IMODE((own / "salt").stat().st_mode) == 0o600
    assert [path.name for path in own.iterdir()] == ["salt"]


def test_another_user_gets_other_keys(own, monkeypatch, tmp_path):
    first = patient_key("id\n7", read_salt())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert patient_key("id\n7", read_salt()) != first


def test_a_key_is_an_hmac_and_depends_on_every_part():
    salt = bytes(range(32))
    expected = hmac.new(salt, b"id\nID7741903\n", hashlib.sha256).hexdigest()[:12]
    assert patient_key("id\nID7741903\n", salt) == f"p{expected}"
    assert patient_key("id\nID7741903\nB", salt) != patient_key("id\nID7741903\n", salt)


def test_a_relative_configuration_folder_is_ignored(monkeypatch):
    """The XDG base directory specification says so."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert config_folder().parts[-2:] == (".config", "heartseg_jax")


@pytest.mark.parametrize("content", ["", "not hexadecimal", "abcd"])
def test_a_damaged_salt_is_refused_not_replaced(own, content):
    own.mkdir(parents=True)
    (own / "salt").write_text(content)
    with pytest.raises(UserError, match="is damaged: restore it"):
        read_salt()
    assert (own / "salt").read_text() == content


def test_a_salt_that_cannot_be_kept_is_one_line(own):
    own.parent.mkdir()
    own.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="set XDG_CONFIG_HOME"):
        read_salt()


def test_the_table_grows_and_is_the_users_alone(own):
    keep_table("hearts", [("pa", "ID1", "study1")])
    path = keep_table("hearts", [("pa", "ID1", "study1"), ("pb", "ID2", "study2")])
    assert path == own / "tables" / "hearts.csv"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["key", "patient", "source"], ["pa", "ID1", "study1"], ["pb", "ID2", "study2"]]


def test_a_damaged_table_is_one_line_and_stays(own):
    path = keep_table("hearts", [("pa", "ID1", "study1")])
    path.write_bytes(b"key,patient\n\xff\xfe")
    with pytest.raises(UserError, match=r"hearts\.csv cannot be read or written .*; move it away"):
        keep_table("hearts", [("pb", "ID2", "study2")])
    assert path.read_bytes().endswith(b"\xff\xfe")
