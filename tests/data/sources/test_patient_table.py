"""Tables as spreadsheets write them: separators, encodings, quotes, keys that come twice."""

import pytest

from heartseg_jax.data.sources.patient_table import patients_of, read_rows, read_table
from heartseg_jax.errors import UserError

ROWS = [["file", "patient"], ["1_a.png", "M\u00fcller; A, B"], ["2.nii.gz", "x"]]
TEXT = {
    "comma": 'file,patient\n1_a.png,"M\u00fcller; A, B"\n2.nii.gz,x\n',
    "semicolon": 'file;patient\r\n1_a.png;"M\u00fcller; A, B"\r\n2.nii.gz;x\r\n',
    "tab": 'file\tpatient\n1_a.png\t"M\u00fcller; A, B"\n2.nii.gz\tx\n',
    "excel": 'sep=;\r\nfile;patient\r\n1_a.png;"M\u00fcller; A, B"\r\n2.nii.gz;x\r\n',
    "blank rows and cells": '\nfile , patient\n\n 1_a.png , "M\u00fcller; A, B"\n2.nii.gz,x\n,\n'.replace(' , "', ',"'),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", TEXT)
def test_separators_and_encodings(tmp_path, kind, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes(TEXT[kind].encode(encoding))
    assert read_rows(path) == ROWS
    assert read_table(path) == {"1_a": "M\u00fcller; A, B", "2": "x"}


def test_another_encoding_and_no_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(TEXT["semicolon"].encode("cp1252"))
    with pytest.raises(UserError, match="UTF-8"):
        read_rows(path)
    with pytest.raises(UserError, match=r"none\.csv cannot be read"):
        read_rows(tmp_path / "none.csv")
    path.write_text("")
    with pytest.raises(UserError, match="must begin with"):
        read_table(path)


def test_a_file_twice_and_rows_without_a_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("file,patient\na.png,x\na.png,x\nb,y\n")
    assert read_table(path) == {"a": "x", "b": "y"}
    path.write_text("file,patient\na.png,x\nA/a.jpg,y\n")
    with pytest.raises(UserError, match="two patients, x and y"):
        read_table(path)


def test_composed_letters_and_missing_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("file,patient\nM\u00fc_1,x\nb,y\n", encoding="utf-8")
    assert patients_of(["Mu\u0308_1"], path) == {"Mu\u0308_1": "x"}
    with pytest.raises(UserError, match="without an image 1 of the files: b"):
        patients_of(["Mu\u0308_1"], path, every_row=True)
    with pytest.raises(UserError, match="misses 1 of the files: c"):
        patients_of(["b", "c"], path)
