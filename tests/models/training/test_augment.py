from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2hed
from tissue import make_section

from sthisto.models.training.augment import N_SYMMETRIES, augment, jitter_stain, symmetries, transform


@pytest.fixture
def patches():
    return np.random.default_rng(0).integers(40, 250, (5, 6, 6, 3), dtype=np.uint8)


def test_the_eight_symmetries_are_all_different(patches):
    seen = {transform(patches[:1], symmetry).tobytes() for symmetry in range(N_SYMMETRIES)}
    assert len(seen) == 8


def test_the_symmetries_are_a_group(patches):
    seen = {transform(patches, symmetry).tobytes() for symmetry in range(N_SYMMETRIES)}
    twice = {transform(transform(patches, a), b).tobytes() for a in range(N_SYMMETRIES) for b in range(N_SYMMETRIES)}
    assert twice == seen


def test_section_is_shown_under_every_symmetry_batch_by_batch():
    section = make_section().inputs
    plain = section.patches[0].read()
    for symmetry, view in enumerate(symmetries(section)):
        expected = transform(plain, symmetry)
        np.testing.assert_array_equal(view.patches[0].read(), expected)
        for index, patches in view.patches[0].batches(10):
            np.testing.assert_array_equal(patches, expected[index])
        np.testing.assert_array_equal(view.patches[0].subset(np.array([3, 1])).read(), expected[[3, 1]])


def test_augmented_patches_are_symmetries_of_themselves(patches):
    torch.manual_seed(0)
    shown = augment(torch.from_numpy(patches)).numpy()
    for patch, view in zip(patches, shown, strict=True):
        assert any(np.array_equal(transform(patch[None], s)[0], view) for s in range(N_SYMMETRIES))


def test_stain_jitter_of_no_strength_leaves_colors(patches):
    kept = jitter_stain(torch.from_numpy(patches), 0.0).numpy()
    assert np.abs(kept.astype(int) - patches).max() <= 1


def test_stain_jitter_changes_hematoxylin_and_eosin_but_not_the_rest():
    torch.manual_seed(0)
    patches = np.full((8, 4, 4, 3), [180, 120, 170], dtype=np.uint8)
    jittered = jitter_stain(torch.from_numpy(patches), 0.5).numpy()
    before, after = (rgb2hed(x)[:, 0, 0] for x in (patches, jittered))
    assert (np.abs(after - before)[:, :2].mean(axis=0) > 2e-3).all()
    np.testing.assert_allclose(after[:, 2], before[:, 2], atol=2e-3)


def test_each_patch_gets_a_stain_of_its_own():
    torch.manual_seed(0)
    patches = torch.full((4, 2, 2, 3), 150, dtype=torch.uint8)
    jittered = jitter_stain(patches, 0.2)
    assert len({patch.numpy().tobytes() for patch in jittered}) == 4
