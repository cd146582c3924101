"""What a misspelt word meant."""

import pytest

from heartseg_jax.errors import suggestion

FIELDS = [
    "seed",
    "data.size",
    "data.batch_size",
    "train.learning_rate",
    "lab.learning_rates",
    "lab.looks",
    "log.figures",
]


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("eval", ["train", "evaluate"], "evaluate"),
        ("trian", ["train", "evaluate"], "train"),
        ("nifti", ["png_pairs", "nifti_pairs"], "nifti_pairs"),
        ("--confg", ["--config", "--workdir"], "--config"),
        ("train.lr", FIELDS, "train.learning_rate"),
        ("train.learning_rat", FIELDS, "train.learning_rate"),
        ("learning_rate", FIELDS, "train.learning_rate"),
        ("batch_size", FIELDS, "data.batch_size"),
        ("data.sise", FIELDS, "data.size"),
    ],
)
def test_the_word_that_was_meant(word, known, meant):
    assert suggestion(word, known) == f"; did you mean {meant}?"


def test_a_few_words_are_listed_and_many_are_not():
    assert suggestion("xyz", ["a", "b"]) == "; there are a, b"
    assert suggestion("xyz", [f"a{k}" for k in range(100)]) == suggestion("", []) == ""
