"""Which names of files are codes, and what patients are called."""

import pytest

from heartseg_jax.data.sources.naming import Naming, is_code
from heartseg_jax.errors import UserError


@pytest.mark.parametrize(
    "name",
    ["1001", "case_012", "case12", "ct_train_1001", "s0011", "p0", "A_2", "sub-03", "1001_63", "phantom_0001"]
    + ["p0123456789ab", "p0123456789ab_0007", "img001", "patient7b", "sub-00017", "1001_179"],
)
def test_codes(name):
    assert is_code(name)


@pytest.mark.parametrize(
    "name",
    ["Meier", "Zwicknagl_Leopoldine", "ID7741903", "7741903", "19310417", "DOE^JOHN", "Ng_12", "case_Lee", "", "_", "Ä"]
    + ["p0123456789xyz", "ct_meier_1", "1931-04-17", "17.04.1931", "123-45-6789", "77419-03", "MRN12345", "ID77419"]
    + ["Max1", "doe1", "12345", "case 012", "1931_04", "case/1", "a" * 200],
)
def test_what_may_be_a_human_being(name):
    assert not is_code(name)


def test_codes_are_kept_and_names_are_keyed():
    naming = Naming()
    assert naming.called(["1001", "1002"]) == {"1001": "1001", "1002": "1002"}
    assert naming.table == naming.notes == []
    called = naming.called(["1001", "Meier"])
    assert set(called) == {"1001", "Meier"}
    assert all(is_code(key) and len(key) == 13 for key in called.values())
    assert called["1001"] != called["Meier"]
    assert naming.table == [(called["1001"], "1001", ""), (called["Meier"], "Meier", "")]
    assert "called by keys" in naming.notes[0]
    assert Naming().called(["Meier"])["Meier"] == called["Meier"], "the same patient has the same key in every dataset"


def test_files_named_after_people_key_their_patients_too():
    assert Naming().called(["1"], files=["Meier_3"])["1"] != "1"


def test_how_letters_are_composed_does_not_matter():
    composed, decomposed = "M\u00fcller", "Mu\u0308ller"
    called = Naming().called([composed, decomposed])
    assert called[composed] == called[decomposed]
    assert len(Naming().called(["M\udcfcller"])["M\udcfcller"]) == 13, "a file's name need not be UTF-8"


def test_keep_and_key():
    assert Naming("keep").called(["Meier"]) == {"Meier": "Meier"}
    naming = Naming("key")
    assert naming.called(["1001"])["1001"] != "1001"
    assert naming.notes == []
    with pytest.raises(UserError, match="--names must be one of auto, keep, key, not 'hash'"):
        Naming("hash")
