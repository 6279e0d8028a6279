from __future__ import annotations

import numpy as np
import pytest

import sthisto as sth


def fitted(sdata, **options):
    """Fit a retrieving model whose encoder is the mean color of a patch: quick, and easy to foresee."""
    import torch

    class MeanColor(torch.nn.Module):
        num_features = 3

        def forward(self, patches):
            return patches.mean(dim=(2, 3)) if patches.ndim == 4 else patches

    return sth.tl.fit(
        sdata, method="knn", image_encoder=MeanColor(), patch_size=32, genes=["FN1", "SCD"], key_added="knn", **options
    )


def test_neighbors_are_drawn_nearest_first_with_their_patches(sdata):
    model = fitted(sdata, k=10)
    table = sdata["spots"]
    spot = table.obs_names[(table.obs["region"] == "left") & (table.obs["annotation"] == "tumor")][0]
    figure = sth.pl.neighbors(sdata, model, spot, n_neighbors=4)
    axes = [ax for ax in figure.axes if ax.get_visible()]
    found = sth.get.neighbors(sdata, model)
    found = found[found["spot"] == spot].head(4)
    assert [ax.get_title() for ax in axes] == [
        f"Spot {spot}",
        *(f"{row.training_section}, cos {row.cosine:.2f}" for row in found.itertuples()),
    ]
    right = table[(table.obs["region"] == "right").to_numpy()]
    for ax, row in zip(axes[1:], found.itertuples(), strict=True):
        assert row.training_section == "right"
        point = sdata["right"].geometry[right.obs["instance"].iloc[row.training_spot]]
        image = sdata["right_image"]["scale0"]["image"].to_numpy()
        expected = image[:, int(point.y) - 16 : int(point.y) + 16, int(point.x) - 16 : int(point.x) + 16]
        np.testing.assert_array_equal(ax.images[0].get_array(), np.moveaxis(expected, 0, -1))


def test_reference_holds_the_training_sections(sdata):
    model = fitted(sdata, k=5)
    spot = sdata["spots"].obs_names[sdata["spots"].obs["region"] == "left"][0]
    with pytest.raises(KeyError, match=r"fitted on 'right'.*Pass reference="):
        sth.pl.neighbors(sdata, model, spot, shapes_key="left")
    assert sth.pl.neighbors(sdata, model, spot, reference=sdata) is not None


def test_unknown_spots_and_methods_without_neighbors_are_refused(sdata):
    model = fitted(sdata, k=5)
    with pytest.raises(KeyError, match="No spot on tissue is called 'nowhere'"):
        sth.pl.neighbors(sdata, model, "nowhere")
    color = sth.tl.fit(sdata, method="color", patch_size=32, genes=["FN1", "SCD"], key_added="color")
    with pytest.raises(TypeError, match=r"'color' predicts without retrieving.*'danet'"):
        sth.get.neighbors(sdata, color)


def test_another_section_of_the_same_name_is_refused(sdata):
    model = fitted(sdata, k=5)
    spot = sdata["spots"].obs_names[sdata["spots"].obs["region"] == "left"][0]
    sdata["right_image"]["scale0"]["image"].data = sdata["right_image"]["scale0"]["image"].data[:, ::-1]
    with pytest.raises(ValueError, match=r"Section 'right' of these data is not the one.*Pass reference="):
        sth.pl.neighbors(sdata, model, spot)
