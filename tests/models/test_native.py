"""The kernels in C: XLA's numbers to rounding, the same bits with any number of threads, and a way out without them."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from heartseg_jax.allocator import least_memory
from heartseg_jax.models import convolution, kernels, norm, pointwise
from heartseg_jax.models.unet import UNet
from heartseg_jax.native import library, switch


@pytest.fixture
def native(monkeypatch):
    """The kernels, turned on."""
    if switch.compiler() is None:
        pytest.skip("no C compiler")
    monkeypatch.delenv(switch.VARIABLE, raising=False)
    assert library.turn_on()
    yield
    kernels.use_native(False)


def both(function, *args):
    """What a function gives with the kernels, and with XLA."""
    mine = jax.tree.map(np.asarray, function(*args))
    kernels.use_native(False)
    theirs = jax.tree.map(np.asarray, function(*args))
    kernels.use_native(True)
    return mine, theirs


def draw(seed, *shapes):
    draws = np.random.default_rng(seed)
    return [jnp.asarray(draws.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("batch", "height", "width", "inside", "outside"),
    [
        (2, 7, 5, (3,), 8),  # the network's own input
        (1, 1, 1, (1,), 8),
        (5, 3, 2, (7,), 16),
        (3, 20, 9, (8, 8), 24),  # an output that ends in half a block
        (2, 13, 17, (24, 24), 40),  # the parts meet within a block
        (1, 200, 48, (16,), 16),  # many bands of rows
        (3, 10, 10, (64,), 128),  # more panels than are read in place, several slices
        (2, 17, 16, (128,), 64),
        (2, 4, 4, (256,), 128),  # deep: a unit of work for each block of weights, which are used once
        (1, 61, 50, (16, 24), 16),  # tiles that hang over two edges, in many bands
        (4, 1, 3, (40,), 48),
    ],
)
def test_value_and_all_gradients_are_those_of_xla(native, batch, height, width, inside, outside, relu):
    *images, kernel, bias, change = draw(
        0,
        *((batch, height, width, channels) for channels in inside),
        (3, 3, sum(inside), outside),
        (outside,),
        (batch, height, width, outside),
    )

    def work(images, kernel, bias):
        convolved = lambda *args: convolution.convolve(*args, relu=relu)  # noqa: E731
        out, back = jax.vjp(convolved, images, kernel, bias)
        return out, back(change)

    mine, theirs = both(work, tuple(images), kernel, bias)
    for own, right in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-5, atol=1e-5 * np.abs(right).max())


def counted(function, *args):
    """How often each of the kernels is called in a function's program."""
    called = re.findall(r"heartseg_(\w+)", str(jax.make_jaxpr(function)(*args)))
    return {name: called.count(name) for name in called}


def test_only_the_gradients_that_are_asked_for_are_computed(native):
    given = draw(0, (1, 8, 8, 8), (3, 3, 8, 16), (16,), (2, 2, 8, 16), (8,))

    def loss(image, kernel, bias, up, up_bias):
        return pointwise.pointwise(convolution.convolve([image], kernel, bias), up, up_bias).sum()

    both_ways = {"convolution": 1, "pointwise": 1, "pointwise_gradients": 1}
    assert counted(jax.grad(loss, (0, 1, 2)), *given) == both_ways | {"convolution_gradients": 1}
    assert counted(jax.grad(loss, 0), *given) == both_ways | {"convolution_image_gradient": 1}
    assert counted(jax.grad(loss, (1, 2)), *given) == both_ways | {"convolution_kernel_gradient": 1}
    assert counted(jax.grad(loss, 3), *given) == both_ways
    for wanted in ((0,), (1, 2), (3, 4), (0, 1, 2, 3, 4)):
        mine, theirs = both(jax.grad(loss, wanted), *given)
        for own, right in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(own, right, rtol=1e-5, atol=1e-5 * np.abs(right).max())


def test_frozen_weights_get_no_gradient_computed(native):
    image, kernel, bias = draw(0, (1, 8, 8, 8), (3, 3, 8, 16), (16,))

    def loss(image, kernel, bias):
        return convolution.convolve([image], jax.lax.stop_gradient(kernel), jax.lax.stop_gradient(bias)).sum()

    calls = counted(jax.grad(loss, (0, 1, 2)), image, kernel, bias)
    assert calls == {"convolution": 1, "convolution_image_gradient": 1}


@pytest.mark.parametrize(
    ("batch", "height", "width", "inside", "side", "outside"),
    [(2, 6, 5, 16, 2, 8), (1, 1, 1, 8, 1, 9), (3, 20, 33, 24, 1, 9), (2, 4, 4, 256, 2, 128), (1, 7, 100, 8, 2, 21)],
)
def test_products_at_each_pixel(native, batch, height, width, inside, side, outside):
    shapes = (batch, height, width, inside), (side, side, outside, inside), (outside,)
    x, kernel, bias, change = draw(0, *shapes, (batch, side * height, side * width, outside))

    def work(*args):
        out, back = jax.vjp(pointwise.pointwise, *args)
        return out, back(change)

    assert counted(work, x, kernel, bias) == {"pointwise": 1, "pointwise_gradients": 1}
    mine, theirs = both(work, x, kernel, bias)
    for own, right in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-5, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize("shape", [(2, 6, 5, 8), (1, 1, 4, 24), (3, 40, 50, 16), (1, 2, 3, 512)])
def test_batch_norm_with_relu(native, shape):
    x, change, scale, bias = draw(0, shape, shape, shape[-1:], shape[-1:])

    def work(*args):
        out, back = jax.vjp(lambda *args: norm.norm_relu(*args), *args)
        return out, back((change, jnp.zeros_like(scale), jnp.zeros_like(scale)))

    assert counted(work, x, scale, bias) == {"norm_relu": 1, "norm_relu_gradients": 1}
    mine, theirs = both(work, x + 1, scale, bias)
    for own, right in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-4, atol=1e-4 * max(1, np.abs(right).max()))


def test_the_backward_pass_lets_go_of_what_it_has_used(native):
    """A training step keeps what its forward pass has saved, and not the gradients on the way too.

    XLA puts off whatever it need not compute at once, such as the gradients of all kernels.
    """
    model, (image,) = UNet(16, 3, 9, norm="batch"), draw(1, (2, 64, 64, 3))
    variables = model.init(jax.random.key(0), image, train=False)

    def loss(params):
        given = variables | {"params": params}
        return (model.apply(given, image, train=True, mutable=["batch_stats"])[0] ** 2).mean()

    program = jax.jit(jax.grad(loss), compiler_options=least_memory()).lower(variables["params"]).compile()
    full = 2 * 64 * 64 * 16 * 4
    # At each of three levels twice what a convolution gives and what follows it, on the way up also what comes up.
    saved = full * ((4 + 5) + (4 + 5) / 2 + 4 / 4) + 2 * full / 4
    assert program.memory_analysis().temp_size_in_bytes < saved + 4 * full


def test_a_pixel_by_hand(native):
    image = jnp.zeros((1, 3, 3, 8)).at[0, 0, 1, 0].set(2.0)
    kernel = jnp.zeros((3, 3, 8, 8)).at[0, 1, 0, 5].set(3.0)  # the tap above the middle
    out = np.asarray(convolution.convolve([image], kernel, jnp.full(8, 0.5)))
    assert out[0, 1, 1, 5] == 6.5
    assert out.sum() == 9 * 8 * 0.5 + 6


@pytest.mark.parametrize("relu", [False, True])
def test_nan_stays_nan(native, relu):
    image = jnp.ones((1, 4, 4, 8)).at[0, 1, 1, 0].set(jnp.nan)
    out = convolution.convolve([image], jnp.ones((3, 3, 8, 8)), jnp.zeros(8), relu=relu)
    assert np.isnan(out[0, :3, :3]).all()
    assert np.isfinite(out[0, 3]).all()


@pytest.mark.parametrize("norm", ["none", "batch", "encoder"])
@pytest.mark.parametrize("train", [False, True])
def test_a_network_and_its_gradient(native, norm, train):
    model = UNet(8, 3, 9, norm=norm)
    (image,) = draw(1, (2, 16, 24, 3))
    variables = model.init(jax.random.key(0), image, train=False)
    draws = np.random.default_rng(2)
    variables = jax.tree.map(lambda leaf: leaf + draws.uniform(0, 0.1, leaf.shape).astype(np.float32), variables)

    def work(params):
        def loss(params):
            given = variables | {"params": params}
            logits, _ = model.apply(given, image, train=train, mutable=["batch_stats"])
            return (logits**2).mean(), logits

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    mine, theirs = both(work, variables["params"])
    # Of a bias before BatchNorm the gradient is zero but for rounding, by the size of the others.
    size = max(np.abs(leaf).max() for leaf in jax.tree.leaves(theirs))
    for own, right in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-4, atol=1e-5 * size)


def test_the_first_weights_are_the_same_ones(native):
    model = UNet(8, 3, 9, norm="batch")
    mine, theirs = both(lambda: model.init(jax.random.key(3), jnp.zeros((1, 16, 16, 3)), train=False))
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)


def test_folds_in_one_program(native):
    image, weights = draw(4, (3, 2, 8, 8, 8), (3, 3, 3, 8, 8))

    def fold(image, weights):
        x, _, _ = norm.norm_relu(convolution.convolve([image], weights, jnp.zeros(8)), jnp.ones(8), jnp.zeros(8))
        return pointwise.pointwise(x, weights[:1, :1], jnp.zeros(8)).sum()

    mine, theirs = both(jax.vmap(jax.value_and_grad(fold, (0, 1))), image, weights)
    for own, right in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-4, atol=1e-4 * np.abs(right).max())


THREADS = """
import hashlib, jax, numpy as np
from heartseg_jax.models import convolution, norm, pointwise
from heartseg_jax.native import library
assert library.turn_on()
draws = np.random.default_rng(0)
draw = lambda *shape: draws.normal(size=shape).astype(np.float32)
def network(images, kernel, bias, deep, up):
    x = convolution.convolve(images, kernel, bias)
    x, mean, var = norm.norm_relu(x, bias, bias)
    y = convolution.convolve([x[:, ::4, ::4]], deep, deep[0, 0, 0])
    return x, pointwise.pointwise(y, up, up[0, 0, :, 0]), mean, var
weights = draw(3, 3, 64, 48), draw(48), draw(3, 3, 48, 160), draw(2, 2, 24, 160)
out, back = jax.vjp(network, (draw(3, 40, 24, 32), draw(3, 40, 24, 32)), *weights)
print(hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((out, back(out))))).hexdigest())
"""


def test_any_number_of_threads_gives_the_same_bits(native):
    found = set()
    for cores in (1, len(os.sched_getaffinity(0))):
        own = sorted(os.sched_getaffinity(0))[:cores]
        code = f"import os; os.sched_setaffinity(0, {own})\n{THREADS}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_other_dtypes_and_odd_channels_keep_xlas_way(native):
    for dtype, outside in ((jnp.bfloat16, 8), (jnp.float32, 5)):
        image, kernel = jnp.ones((1, 4, 4, 2), dtype), jnp.ones((3, 3, 2, outside), dtype)
        assert not convolution._by_native([image], kernel)
        assert convolution.convolve([image], kernel, jnp.zeros(outside, dtype)).dtype == dtype


def test_sums_are_cut_by_shapes_alone():
    assert [convolution._slices(*shape) for shape in ((16, 16), (64, 64), (128, 128), (512, 512))] == [16, 4, 1, 1]


def start(code, **env):
    """A fresh process that turns the kernels on and prints whether they are."""
    code = f"{code}\nfrom heartseg_jax.native.library import turn_on; print(turn_on())"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, check=True)


def test_without_a_compiler_xla_computes_and_a_line_says_so():
    code = "from heartseg_jax.native import switch; switch.COMPILERS = ()"
    code += "\nimport importlib.util; importlib.util.find_spec = lambda name: None"
    done = start(code)
    assert done.stdout == "False\n"
    assert len(done.stderr.splitlines()) == 1
    assert "ziglang" in done.stderr


def test_whether_they_are_possible_is_told_without_jax(monkeypatch):
    monkeypatch.delenv(switch.VARIABLE, raising=False)
    code = (
        "import sys; from heartseg_jax.native.switch import are_possible; print(are_possible(), 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{sys.platform.startswith('linux') and switch.compiler() is not None} False\n"
    monkeypatch.setenv(switch.VARIABLE, switch.OFF)
    assert not switch.are_possible()


def test_a_compiler_that_fails_is_named(tmp_path):
    broken = tmp_path / "cc"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "x.c:1: error: no such thing" >&2\nexit 1\n')
    broken.chmod(0o755)
    done = start("", PATH=f"{tmp_path}:{os.environ['PATH']}", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.stdout == "False\n"
    assert "no such thing" in done.stderr
    assert not list((tmp_path / "cache").rglob("*.so"))


TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}


@pytest.mark.parametrize("variables", [{switch.VARIABLE: "off"}, TWO_DEVICES])
def test_turned_off_and_with_several_devices_xla_computes(variables):
    done = start("", **variables)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_compiled_once_and_kept_whole(native, tmp_path):
    """A damaged file is not used, but compiled anew."""
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    first, second = start("", **env), start("", **env)
    assert first.stdout == second.stdout == "True\n"
    assert "compiling" in first.stderr
    assert not second.stderr
    (kept,) = tmp_path.rglob("*.so")
    assert not list(tmp_path.rglob("build-*"))
    kept.write_bytes(kept.read_bytes()[:1000])
    anew = start("", **env)
    assert anew.stdout == "True\n"
    assert "compiling" in anew.stderr


def test_a_folder_that_others_may_write_to_is_not_trusted(native, tmp_path):
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    start("", **env)
    (kept,) = tmp_path.rglob("*.so")
    kept.parent.chmod(0o777)
    kept.write_bytes(b"not ours")
    done = start("", **env)
    assert done.stdout == "True\n"
    assert "compiling" in done.stderr
