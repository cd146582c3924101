"""Packages: two files, each covered by a digest. What is damaged is found, and named with the fix."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from heartseg_jax.config import load, schema
from heartseg_jax.errors import UserError
from heartseg_jax.interop import package
from heartseg_jax.interop.package import located, read_head, read_package, shortened, write_package
from heartseg_jax.preprocess.contract import Contract, InputSpec
from heartseg_jax.preprocess.learned import Learned

LEARNED = Learned("hearts", "real", 2, 9, {"left_atrium": 2}, ("a" * 64, "b" * 64), licence="CC BY 4.0, A. Author [1]")
SPEC = InputSpec("HU", 32, 1.5, ((0, (-200.0, 600.0)),), (1.0, 99.0))
CONTRACT = Contract(SPEC, "heart", "hearts", "e" * 64, 5, (), (LEARNED,))


def member(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    array = lambda *shape: (scale * rng.normal(size=shape)).astype(np.float32)  # noqa: E731
    return (
        {"encoder": {"stage1": {"conv1": {"kernel": array(3, 3, 2, 4), "bias": array(4)}}}},
        {"encoder": {"stage1": {"norm1": {"mean": 1e6 * array(4)}}}},
    )


def write(folder, members, dtype="float32", mantissa_bits=None, **changes):
    folder.mkdir()
    plain = load.to_plain(schema.defaults())
    sources = [
        {"seed": k, "step": 7, "checkpoint_sha256": "c" * 64, "config_sha256": "d" * 64, "averaged": False}
        for k in range(2)
    ]
    head = {"name": "hearts_v1", "version": "1", "sources": sources[: len(members)], "contract": CONTRACT.to_json()}
    write_package(folder, {**head, "config": plain, **changes}, members, dtype, mantissa_bits)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return write(tmp_path_factory.mktemp("packages") / "two", [member(0), member(1)])


def test_it_is_read_as_it_was_written(two):
    found = read_package(two)
    assert found.contract == CONTRACT
    assert load.to_plain(found.config) == load.to_plain(load.complete(load.to_plain(schema.defaults())))
    for own, again in zip([member(0), member(1)], found.members, strict=True):
        kernel = lambda tree: tree[0]["encoder"]["stage1"]["conv1"]["kernel"]  # noqa: E731
        np.testing.assert_array_equal(kernel(own), kernel(again))
        np.testing.assert_array_equal(
            own[1]["encoder"]["stage1"]["norm1"]["mean"], again[1]["encoder"]["stage1"]["norm1"]["mean"]
        )
    # The format, by other means than its reader: plain arrays under their paths, an axis of members first.
    with np.load(two / "weights.npz", allow_pickle=False) as stored:
        assert {name: stored[name].shape for name in stored.files} == {
            "params/encoder/stage1/conv1/kernel": (2, 3, 3, 2, 4),
            "params/encoder/stage1/conv1/bias": (2, 4),
            "batch_stats/encoder/stage1/norm1/mean": (2, 4),
        }
    head = json.loads((two / "model.json").read_text())
    assert head["weights"]["sha256"] == hashlib.sha256((two / "weights.npz").read_bytes()).hexdigest()
    assert head["contract"]["learned_from"][0]["licence"] == LEARNED.licence
    text = (two / "model.json").read_text().replace(head["content_sha256"], "0" * 64)
    assert hashlib.sha256(text.encode()).hexdigest() == head["content_sha256"] == found.sha256


def test_only_kernels_are_rounded(tmp_path):
    folder = write(tmp_path / "half", [member(0)], "float16")
    params, stats = read_package(folder).members[0]
    conv, exact = params["encoder"]["stage1"]["conv1"], member(0)
    true = exact[0]["encoder"]["stage1"]["conv1"]
    assert conv["kernel"].dtype == np.float32
    np.testing.assert_array_equal(conv["kernel"], true["kernel"].astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(conv["bias"], true["bias"])
    np.testing.assert_array_equal(
        stats["encoder"]["stage1"]["norm1"]["mean"], exact[1]["encoder"]["stage1"]["norm1"]["mean"]
    )


@pytest.mark.parametrize("bits", [1, 3, 9, 10])
def test_kernels_keep_the_bits_asked_for_and_round_to_the_nearest(bits):
    """Against rounding the fraction, in float64; the subnormal ones are as far apart as float16's least."""
    values = np.random.default_rng(0).normal(size=4000).astype(np.float16)
    values[:6] = 0, -0.0, 1, 65504, 2**-14, -1.5
    fraction, exponent = np.frexp(values.astype(np.float64))
    wanted = np.ldexp(np.round(fraction * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent)
    found = shortened(values, bits)
    normal = (np.abs(values) >= 2**-14) & (np.abs(wanted) <= 65504)
    np.testing.assert_array_equal(found[normal], wanted[normal])
    assert found[0] == found[1] == 0


def test_fewer_bits_make_a_smaller_file_and_leave_all_but_kernels(tmp_path):
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(3, 3, 64, 64)).astype(np.float32)
    large = ({"head": {"conv": {"kernel": kernel, "bias": kernel[0, 0, 0]}}}, {})
    whole = write(tmp_path / "ten", [large], "float16")
    few = write(tmp_path / "three", [large], "float16", 3)
    assert (few / "weights.npz").stat().st_size < 0.65 * (whole / "weights.npz").stat().st_size
    conv = read_package(few).members[0][0]["head"]["conv"]
    np.testing.assert_allclose(conv["kernel"], kernel, rtol=2**-4 + 2**-10, atol=1e-5)
    np.testing.assert_array_equal(conv["bias"], kernel[0, 0, 0])
    assert read_head(few)["weights"]["mantissa_bits"] == 3
    assert "mantissa_bits" not in read_head(whole)["weights"]


def test_what_rounding_would_make_infinite_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"head.*float32"):
        write(tmp_path / "p", [({"head": {"kernel": np.float32([65000.0])}}, {})], "float16", 3)


@pytest.mark.parametrize(("scale", "dtype", "fix"), [(1e6, "float16", "float32"), (np.nan, "float32", "checkpoint")])
def test_what_does_not_fit_the_dtype_is_refused(tmp_path, scale, dtype, fix):
    with pytest.raises(UserError, match=f"stage1.*{fix}"):
        write(tmp_path / "p", [member(0, scale)], dtype)


@pytest.mark.parametrize("name", ["model.json", "weights.npz"])
def test_any_changed_byte_is_found(two, tmp_path, name):
    """Every byte in turn for the first and the last, and a spread of them between; three bits of each."""
    shutil.copytree(two, tmp_path / "p")
    file = tmp_path / "p" / name
    content = file.read_bytes()
    stride = max(1, len(content) // 150)
    for place in {*range(40), *range(40, len(content) - 90, stride), *range(len(content) - 90, len(content))}:
        for bit in (1, 32, 128):
            mutant = bytearray(content)
            mutant[place] ^= bit
            file.write_bytes(mutant)
            with pytest.raises(UserError, match=r"damaged.*copy the package again"):
                read_package(tmp_path / "p")


@pytest.mark.parametrize("name", ["model.json", "weights.npz"])
def test_a_file_that_is_cut_short_or_gone_is_found(two, tmp_path, name):
    shutil.copytree(two, tmp_path / "p")
    file = tmp_path / "p" / name
    content = file.read_bytes()
    for kept in (0, 1, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:kept])
        with pytest.raises(UserError, match=name):
            read_package(tmp_path / "p")
    file.unlink()
    assert package.is_package(tmp_path / "p")
    with pytest.raises(UserError, match=f"{name}.*copy the package again"):
        read_package(tmp_path / "p")


def test_files_of_two_packages_do_not_go_together(two, tmp_path):
    other = write(tmp_path / "other", [member(2), member(3)])
    shutil.copy(two / "weights.npz", other / "weights.npz")
    with pytest.raises(UserError, match=r"weights\.npz is damaged"):
        read_package(other)


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 2},
        {"format": "another"},
        {"contract": {"version": 9}},
        {"contract": None},
        {"sources": []},
        {"sources": [{"step": "7"}]},
        {"config": {}},
        {"name": 3},
    ],
)
def test_a_whole_package_of_another_form_is_one_line(tmp_path, change):
    """The digests are right; the content is not what this version reads."""
    folder = write(tmp_path / "p", [member(0)], **change)
    with pytest.raises(UserError, match=str(folder)) as refusal:
        read_package(folder)
    assert "\n" not in str(refusal.value)


def test_a_pickle_is_never_loaded(tmp_path):
    folder = write(tmp_path / "p", [member(0)])
    np.savez(folder / "weights.npz", **{"params/x": np.array([{"a": 1}], dtype=object)})
    head = json.loads((folder / "model.json").read_text())
    head["weights"]["sha256"] = hashlib.sha256((folder / "weights.npz").read_bytes()).hexdigest()
    head["content_sha256"] = "0" * 64
    text = json.dumps(head, indent=1)
    (folder / "model.json").write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))
    assert read_head(folder)["name"] == "hearts_v1"  # so that it is the weights which are refused
    with pytest.raises(UserError, match="allow_pickle"):
        read_package(folder)


def test_a_shipped_model_goes_by_its_name(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(package, "SHIPPED", {"heart_v1": two})
    assert located("heart_v1") == two
    assert located(tmp_path / "heart_v1") == tmp_path / "heart_v1"
    (tmp_path / "heart_v1").mkdir()
    with pytest.raises(UserError, match="heart_v1.*rename"):
        located("heart_v1")
    (tmp_path / "heart_v1").rmdir()
    monkeypatch.setattr(package, "SHIPPED", {"heart_v1": tmp_path / "none"})
    with pytest.raises(UserError, match="heart_v1 does not come"):
        located("heart_v1")


@pytest.mark.parametrize("name", package.SHIPPED)
def test_what_ships_is_whole_small_and_says_where_it_came_from(name):
    folder = package.SHIPPED[name]
    if not package.is_package(folder):
        pytest.skip(f"{name} does not come with this version")
    found = read_package(folder)
    assert found.head["name"] == name
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12_000_000
    assert sorted(file.name for file in folder.iterdir()) == ["model.json", "weights.npz"]
    assert all(record.licence for record in found.contract.learned_from)
    assert all(found.contract.taught.values())  # every structure was taught
    assert all(source["commit"] and source["command"] for source in found.head["sources"])
    notice = (folder.parents[2] / "NOTICE").read_text()
    assert f"heartseg_jax/weights/{name}" in notice
