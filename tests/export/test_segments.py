"""What DICOM objects say alike."""

from heartseg_jax.export.segments import fitted


def test_lines_fill_one_text_after_the_other_and_what_is_left_is_counted():
    lines = ["a" * 10, "b" * 10, "c" * 10, "d" * 60]
    assert fitted(lines[:2], [21]) == ["a" * 10 + "\n" + "b" * 10]
    assert fitted(lines[:2], [20, 20]) == ["a" * 10, "b" * 10]
    assert fitted(lines[:1], [20, 20]) == ["a" * 10, ""]
    [only] = fitted(lines, [70])  # the first three have room, but not beside the count of the fourth
    assert len(only) <= 70
    assert only.splitlines()[:2] == lines[:2]
    assert "2" in only.splitlines()[2]
    first, last = fitted(lines, [32, 59])
    assert first.splitlines() == lines[:3]
    assert "1" in last
