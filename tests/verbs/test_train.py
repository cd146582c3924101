"""The verb `train`: what it says after Ctrl-C depends on what is kept."""

import main


def values_of(tmp_path):
    return main.parse(["--config=configs/quickstart.py", f"--workdir={tmp_path}"])


def test_without_a_checkpoint_nothing_is_resumed(tmp_path):
    module, values = values_of(tmp_path)
    assert "step" not in module.interrupted(values)
    (tmp_path / "checkpoints" / "best").mkdir(parents=True)
    assert "resumes" not in module.interrupted(values)


def test_the_newest_checkpoint_is_named(tmp_path):
    for step in ("200", "1000", "600"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    module, values = values_of(tmp_path)
    assert "resumes from the checkpoint of step 1000" in module.interrupted(values)
