"""`check --config`: numbers that can be worked out by hand, and the warning of a field that is too narrow."""

import json

import pytest

import main
from heartseg_jax.config import load
from heartseg_jax.verbs import check_config
from tests.tiny import write_tiny


def test_the_scratch_unet_by_hand(capsys):
    assert main.main(["check", "--config=configs/scratch.py", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # (inputs * 9 + 1) * filters for each convolution, (inputs * 4) * filters + filters for the two transposed ones.
    encoder = (3 * 9 + 1) * 64 + (64 * 9 + 1) * 64 + (64 * 9 + 1) * 128 + (128 * 9 + 1) * 128
    bottom = (128 * 9 + 1) * 256 + (256 * 9 + 1) * 256
    decoder = 256 * 4 * 128 + 128 + (256 * 9 + 1) * 128 + (128 * 9 + 1) * 128
    decoder += 128 * 4 * 64 + 64 + (128 * 9 + 1) * 64 + (64 * 9 + 1) * 64
    total = encoder + bottom + decoder + 64 * 9 + 9
    assert found["parameters"] == {"total": total, "trainable": total, "statistics": 0}
    assert found["receptive_field"]["pixels"] == 44
    assert found["config"]["data"]["size"] == 512
    # Two full-resolution 64 -> 64 convolutions alone are 2 * 2 * 9 * 64 * 64 * 512 * 512 FLOPs.
    assert found["flops_per_image"] > 2 * 2 * 9 * 64 * 64 * 512 * 512
    assert found["step_memory_bytes"] > 4 * 4 * total
    assert found["estimate"]["steps"] == 10 * 64 // 4 * 75
    assert found["estimate"]["run_s"] == found["estimate"]["steps"] * found["estimate"]["step_s"] > 0


def test_the_page_shows_everything_and_warns_of_a_narrow_field(capsys):
    assert main.main(["check", "--config=configs/scratch.py"]) == 0
    shown = capsys.readouterr().out
    for expected in (
        "data.size                        512",
        "backend  ",
        "params/encoder/stage1/conv1/kernel",
        "1,863,369 in total",
        "receptive field  44 pixels (17 to 31 mm",
        "left ventricle (length)            90 mm   wider than the receptive field",
        "WARNING: 6 of 9",
        "GFLOP per image of 512x512",
        "GiB for 4 images",
        "steps (estimated",
    ):
        assert expected in shown


def test_a_wide_field_brings_no_warning(capsys):
    assert main.main(["check", "--config=configs/quickstart.py"]) == 0
    assert "WARNING" not in capsys.readouterr().out


def config_of(**changes):
    return load.load("configs/quickstart.py", {name.replace("__", "."): value for name, value in changes.items()})[1]


def test_steps_of_phantoms_and_of_a_fixed_length():
    # 36 patients of 32 slices in batches of 8, twice.
    assert check_config.total_steps(config_of()) == 36 * 32 // 8 * 2
    assert check_config.total_steps(config_of(data__batch_size="5")) == 231 * 2
    assert check_config.total_steps(config_of(train__steps="7")) == 7


def test_steps_of_a_dataset(tmp_path):
    write_tiny(tmp_path / "d")  # three training patients of six slices
    assert check_config.total_steps(config_of(data__path=str(tmp_path / "d"))) == 3 * 2
    assert check_config.total_steps(config_of(data__path=str(tmp_path / "d"), data__test_patients="a")) == 3 * 2
    assert check_config.total_steps(config_of(data__path=str(tmp_path / "nowhere"))) is None


def test_a_damaged_dataset_is_refused(tmp_path, capsys):
    (tmp_path / "dataset.json").write_text("{")
    assert main.main(["check", "--config=configs/quickstart.py", f"--config.data.path={tmp_path}"]) == 2
    assert "dataset.json is damaged" in capsys.readouterr().err


def test_the_time_is_arithmetic_over_speed(monkeypatch):
    monkeypatch.setattr(check_config, "network_flops_per_second", lambda dtype, native: 24e9)
    found = check_config.estimate(config_of(train__steps="10"), 10**9)
    # 3 * 8 GFLOP at 24 GFLOP/s.
    assert found == pytest.approx({"step_s": 1.0, "steps": 10, "run_s": 10.0})


def test_a_matrix_product_has_a_speed():
    assert 1e7 < check_config.network_flops_per_second("float32") < 1e16
