"""Hearts with walls and fat, tubes and trees, slices: by hand-made shapes."""

import numpy as np
import pytest

from heartseg_jax.imaging import tissues as t
from heartseg_jax.imaging.body.compose import compose, rotation
from heartseg_jax.imaging.body.hearts import modelled_heart, real_heart
from heartseg_jax.imaging.body.kit import (
    ASCENDING,
    CAVA,
    DESCENDING,
    LEFT_VENTRICLE,
    NONE,
    PULMONARY,
    RIGHT_ATRIUM,
    RIGHT_VENTRICLE,
    around,
    between,
)
from heartseg_jax.imaging.body.sampling import Warp, dense, vote
from heartseg_jax.imaging.body.slices import cut, random_build, random_levels
from heartseg_jax.imaging.body.thorax import WALL, make_thorax
from heartseg_jax.imaging.body.tubes import curve, paint_nodes, sweep, tree
from heartseg_jax.imaging.tissues import LABEL_OF
from tests.made_anatomy import heart, joined, modelled, trunk


@pytest.fixture(scope="module")
def thorax():
    return make_thorax(*trunk())


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_the_code_with_the_largest_weight_wins():
    codes = np.zeros((2, 2, 3), np.uint8)
    codes[1] = 7
    codes[0, 0, 0] = 4
    # 0.4 towards the sevens: these have 0.4, the four 0.6 * 0.9 * 0.9 = 0.486, the zeros the rest.
    assert vote(codes, np.array([[0.4, 0.1, 0.1]]), 9).tolist() == [4]
    assert vote(codes, np.array([[0.4, 0.3, 0.3]]), 9).tolist() == [7]
    assert vote(codes, np.array([[-0.1, 0, 0], [0, 0, 2.5], [0.9, 0.5, 1.0]]), 9).tolist() == [9, 9, 7]


def test_interpolation_stays_between_the_ends():
    values = np.array([[0.0, 10.0], [4.0, 6.0]])
    np.testing.assert_allclose(between(values, np.array([-1, 0.25, 5]), 0), [[0, 10], [1, 9], [4, 6]])
    few = np.arange(3.0)[:, None, None] * np.ones((1, 3, 1))
    np.testing.assert_allclose(dense(few, 9)[:, 4, 0], np.arange(9) / 4)


def test_a_warp_is_smooth_and_as_large_as_asked(rng):
    warp = Warp(rng, np.zeros(3), np.full(3, 400.0), 40.0, 5.0)
    at = rng.uniform(0, 400, (4000, 3))
    assert 3.5 < warp(at).std() < 6.5
    assert np.abs(warp(at + [1, 0, 0]) - warp(at)).max() < 2


def test_a_ball_and_what_it_may_not_paint_over():
    codes = np.full((21, 21, 21), t.FAT, np.uint8)
    codes[:10] = t.BONE
    sweep(codes, 1.0, np.array([[10.0, 10, 10]]), 6.0, ASCENDING, (t.FAT,))
    painted = codes == ASCENDING
    assert not painted[:10].any()
    x, y, z = np.mgrid[:21, :21, :21] - 10
    np.testing.assert_array_equal(painted, (x**2 + y**2 + z**2 <= 36) & (x >= 0))
    sweep(codes, 1.0, np.array([[100.0, 10, 10]]), 6.0, ASCENDING, (t.FAT,))
    np.testing.assert_array_equal(codes == ASCENDING, painted)


def test_a_curve_goes_through_its_points():
    points = np.array([[0.0, 0, 0], [10, 0, 0], [10, 10, 0]])
    line = curve(points)
    assert len(line) == 20
    np.testing.assert_allclose(line[[0, -1]], points[[0, -1]])
    assert np.linalg.norm(line - points[1], axis=1).min() < 1.0
    assert len(curve([points[0], points[0]])) == 1


def test_a_tree_reaches_its_targets_and_thins_out(rng):
    targets = rng.permutation(np.argwhere(np.ones((60, 60, 60), bool))[:: 60 * 91])[:40].astype(float)
    nodes, radii, along = tree(rng, np.full(3, -5.0), targets, 5.0, 0.7)
    assert all(np.linalg.norm(nodes - target, axis=1).min() < 1e-6 for target in targets)
    assert radii[0] == pytest.approx(0.7 * len(targets) ** 0.4)
    assert radii.min() == pytest.approx(0.7)
    assert along[0] == 0
    assert (along[1:] > 0).all()
    codes = np.full((64, 64, 64), t.LUNG, np.uint8)
    paint_nodes(codes, 1.0, nodes, radii, t.LUNG_VESSEL, (t.LUNG,))
    x, y, z = targets.astype(int).T
    assert (codes[x, y, z] == t.LUNG_VESSEL).all()


def test_walls_are_as_thick_as_stated():
    codes = np.full((70, 70, 70), NONE, np.uint8)
    x, y, z = np.mgrid[:70, :70, :70] - 35
    far = np.sqrt(x**2 + y**2 + z**2)
    codes[far <= 12] = LEFT_VENTRICLE
    out = around(codes, 1.0, walls=True)
    line = out[35:, 35, 35].tolist()
    assert line[:13] == [LEFT_VENTRICLE] * 13
    assert line[13:22] == [t.MYOCARDIUM] * 9
    assert line[22:25] == [t.FAT] * 3
    assert line[33] == NONE
    assert around(codes, 1.0, walls=False)[48, 35, 35] == t.FAT


def test_joined_chambers_are_ignored_and_their_aorta_too_where_it_cannot_be_divided():
    kit = real_heart("a", "a", joined(), 1.0, eight=False)
    found = set(np.unique(kit.codes).tolist())
    assert t.JOINED_BLOOD in found
    assert PULMONARY in found
    assert not {LEFT_VENTRICLE, RIGHT_VENTRICLE, RIGHT_ATRIUM} & found
    assert LABEL_OF[t.JOINED_BLOOD] == 255


def test_modelled_walls_are_kept():
    kit = modelled_heart("a", modelled(), 1.0)
    inner = kit.codes[14:-14, 14:-14, 14:-14]
    assert (inner[modelled() == 9] == t.MYOCARDIUM).all()
    assert (inner[modelled() == 1] == LEFT_VENTRICLE).all()


def test_rotation_keeps_lengths():
    turn = rotation(np.array([0.1, -0.2, 0.15]))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_a_thorax_has_no_heart(thorax):
    assert not np.isin(thorax.codes, range(10, 20)).any()
    assert {t.LUNG, t.FAT, t.BONE, t.MARROW, t.LIVER, t.AIRWAY, WALL} <= set(np.unique(thorax.codes).tolist())
    assert set(np.unique(LABEL_OF[thorax.own.codes[thorax.own.codes != NONE]]).tolist()) == set(range(9))
    assert thorax.width == pytest.approx(60 * 1.5, abs=5)
    assert thorax.outside[30, 30, 10] == 0
    assert thorax.outside[2, 30, 10] > 20


@pytest.mark.parametrize("make", ["real", "modelled", "own"])
def test_every_heart_gets_all_vessels_and_left_stays_left(thorax, make):
    kit = {
        "real": lambda: real_heart("a", "a", heart(), 1.0, eight=True),
        "modelled": lambda: modelled_heart("a", modelled(), 1.0),
        "own": lambda: thorax.own,
    }[make]()
    rng = np.random.default_rng(1)
    patient = compose(rng, thorax, kit, 1.0, np.zeros(3))
    build = random_build(rng, patient)
    levels = random_levels(rng, patient, 40)
    assert (np.diff(levels) >= 0).all()
    maps = np.stack([cut(rng, patient, build, float(level), 64) for level in levels])
    assert maps.dtype == np.uint8
    assert set(np.unique(maps).tolist()) <= {tissue.code for tissue in t.TISSUES}
    found = set(np.unique(LABEL_OF[maps]).tolist())
    assert {1, 2, 3, 4, 5, 6, 7, 8} <= found
    place = {code: np.argwhere(maps == code).mean(axis=0) for code in (LEFT_VENTRICLE, RIGHT_ATRIUM, RIGHT_VENTRICLE)}
    place[DESCENDING] = np.argwhere(maps == DESCENDING).mean(axis=0)
    assert place[LEFT_VENTRICLE][2] > place[RIGHT_ATRIUM][2]  # columns run towards the patient's left
    assert place[RIGHT_VENTRICLE][1] < place[LEFT_VENTRICLE][1] < place[DESCENDING][1]  # rows towards the back
    assert {ASCENDING, CAVA, PULMONARY} <= set(np.unique(patient.kit.codes).tolist()) | set(
        np.unique(patient.codes).tolist()
    )
