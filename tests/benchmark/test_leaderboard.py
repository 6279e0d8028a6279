import json

import numpy as np
import pandas as pd
import pytest
from tissue import GENES, PATCH, make_tissue, mark_split

import sthisto as sth
from sthisto.benchmark._leaderboard_page import as_text
from sthisto.cli import main
from sthisto.metrics import paired_difference, pearson_residuals

pytestmark = pytest.mark.filterwarnings("ignore:zarr v3 autosharding:UserWarning")


@pytest.fixture(scope="module")
def tissue():
    tissue = make_tissue("ABC")
    mark_split(tissue, {"A": "train", "B": "test", "C": "test"})
    sth.tl.predict(tissue, sth.tl.fit(tissue, method="color", patch_size=PATCH, genes=GENES))
    return tissue


@pytest.fixture(scope="module")
def files(tissue, tmp_path_factory):
    """A folder with a good prediction, a noisy one of fewer genes, one on another scale, and a damaged file."""
    folder = tmp_path_factory.mktemp("predictions")
    good = sth.get.anndata(tissue)
    good.write_h5ad(folder / "good.h5ad")
    noisy = good[:, :10].copy()
    noisy.X = noisy.X + np.random.default_rng(0).normal(size=noisy.shape).astype(np.float32)
    frame = noisy.to_df().assign(section=noisy.obs["library_id"].astype(str)).rename_axis("spot")
    frame.to_csv(folder / "noisy.csv")
    counts = good.copy()
    counts.X = np.expm1(counts.X)
    counts.write_h5ad(folder / "counts.h5ad")
    (folder / "broken.parquet").write_text("x")
    (folder / "notes.md").write_text("not a prediction")
    return folder


def read(folder, *names):
    return {name: sth.io.read_prediction(folder / name) for name in names}


def test_scores_and_paired_differences_are_recomputed_on_shared_genes_and_spots(tissue, files, caplog):
    table = sth.benchmark.leaderboard(tissue, read(files, "good.h5ad", "noisy.csv"))
    assert "'noisy.csv' has the fewest" in caplog.text
    whole = table[(table["section"] == "all") & table["rank"].notna()].set_index("method")
    assert list(whole.index) == ["good.h5ad", "noisy.csv"]
    assert whole["n_genes"].tolist() == [10, 10]
    assert whole["predicted_genes"].tolist() == [12, 10]
    assert whole["n_spots"].tolist() == [98, 98]
    for name in whole.index:
        of_it = sth.io.read_prediction(files / name)[:, GENES[:10]].copy()
        sth.tl.evaluate(tissue, prediction=of_it, key_added="check")
        expected = sth.get.scores(tissue, key_added="check", by="section").set_index("section").loc["all"]
        for metric in ("pcc_residual", "pcc", "rmse"):
            assert whole.loc[name, metric] == pytest.approx(expected[metric], rel=1e-5)
        assert table.query("method == 'siblings' and section == 'all'")["pcc_residual"].item() == pytest.approx(
            expected["sibling"], rel=1e-5
        )


def test_differences_equal_those_of_the_metric(tissue, files):
    table = sth.benchmark.leaderboard(tissue, read(files, "good.h5ad", "noisy.csv"), shapes_key="B")
    found = table[(table["section"] == "B") & (table["method"] == "noisy.csv")].iloc[0]
    from sthisto._scoring.measure import section_blocks
    from sthisto._sdata.keys import ElementKeys
    from sthisto._sdata.sections import read_sections

    (section,) = read_sections(tissue, ElementKeys(shapes_key="B"))
    counts = section.table.X[section.rows].toarray()
    residuals = pearson_residuals(counts[:, :10], totals=counts.sum(axis=1))
    names = section.table.obs_names[section.rows]
    values = {name: sth.io.read_prediction(files / name)[names].X[:, :10] for name in ("good.h5ad", "noisy.csv")}
    expected = paired_difference(residuals, values, section_blocks(section.centers), reference="good.h5ad")["noisy.csv"]
    assert found["difference"] == pytest.approx(expected.value, rel=1e-4)
    assert found["difference_low"] == pytest.approx(expected.low, rel=1e-3)
    assert found["difference_high"] == pytest.approx(expected.high, rel=1e-3)


def test_baselines_are_fitted_on_the_training_spots_and_compared_in_pairs(tissue, files):
    sent = read(files, "noisy.csv")
    table = sth.benchmark.leaderboard(tissue, sent, baselines=["color"], shapes_key=["B", "C"], n_boot=50)
    whole = table[table["section"] == "all"].set_index("method")
    assert np.isnan(whole.loc["color", "rank"])
    own = make_tissue("ABC")  # the same sections, predicted by a fit with the defaults that the baseline has
    mark_split(own, {"A": "train", "B": "test", "C": "test"})
    sth.tl.predict(own, sth.tl.fit(own, method="color", genes=GENES[:10]))
    sth.tl.evaluate(own, n_boot=0, n_splits=1)
    expected = sth.get.scores(own, by="section").set_index("section").loc["all"]
    assert whole.loc["color", "pcc_residual"] == pytest.approx(expected["pcc_residual"], abs=1e-5)
    assert whole.loc["color", "rmse"] == pytest.approx(expected["rmse"], rel=1e-4)
    for name in ("color", "depth"):
        gap = whole.loc[name, "pcc_residual"] - whole.loc["noisy.csv", "pcc_residual"]
        assert whole.loc[name, "difference"] == pytest.approx(gap, abs=1e-5)
        assert whole.loc[name, "difference_low"] < gap < whole.loc[name, "difference_high"]
    swapped = sth.benchmark.leaderboard(tissue, sent, baselines=["color"], reference="color", n_boot=50)
    row = swapped[swapped["section"] == "all"].set_index("method").loc["noisy.csv"]
    assert row["difference"] == pytest.approx(-whole.loc["color", "difference"], abs=1e-5)


def test_baselines_need_training_spots_and_names_of_their_own(files):
    own = make_tissue("ABC")
    with pytest.raises(ValueError, match="marks 'train', and there are none"):
        sth.benchmark.leaderboard(own, read(files, "good.h5ad"), baselines=["color"], n_boot=0)
    with pytest.raises(ValueError, match="name predictions and baselines"):
        sth.benchmark.leaderboard(own, {"color": read(files, "good.h5ad")["good.h5ad"]}, baselines=["color"], n_boot=0)


def test_what_cannot_be_compared_has_no_score_and_a_reason(tissue, files):
    table = sth.benchmark.leaderboard(tissue, read(files, "good.h5ad", "counts.h5ad"), n_boot=0)
    refused = table[table["note"].notna()].iloc[0]
    assert refused["method"] == "counts.h5ad"
    assert "without the logarithm" in refused["note"]
    assert np.isnan(refused["pcc_residual"])
    with pytest.raises(ValueError, match=r"None of the predictions can be compared. counts: .*another scale"):
        sth.benchmark.leaderboard(tissue, {"counts": read(files, "counts.h5ad")["counts.h5ad"]})
    with pytest.raises(ValueError, match="is empty"):
        sth.benchmark.leaderboard(tissue, {})
    with pytest.raises(KeyError, match="the predictions that can be compared"):
        sth.benchmark.leaderboard(tissue, {"good": "layer:sthisto_pred"}, reference="counts")


def test_training_spots_of_our_own_layers_are_refused(tissue):
    own = make_tissue("AB")
    sth.tl.predict(own, sth.tl.fit(own, method="color", patch_size=PATCH, genes=GENES))
    with pytest.raises(ValueError, match="It was trained on 49 of the spots"):
        sth.benchmark.leaderboard(own, {"ours": "layer:sthisto_pred"})


def test_the_command_writes_csv_markdown_and_a_page(tissue, files, tmp_path, capsys):
    tissue.write(tmp_path / "measured.zarr")
    arguments = ["leaderboard", str(files), "--data", str(tmp_path / "measured.zarr"), "--n-boot", "50"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# Leaderboard")
    assert (tmp_path / "out/leaderboard.md").read_text() in printed
    table = pd.read_csv(tmp_path / "out/leaderboard.csv")
    assert set(table.loc[table["note"].notna(), "method"]) == {"counts", "broken"}
    page = (tmp_path / "out/leaderboard.html").read_text()
    assert "good has the highest mean residual PCC" in page
    assert "broken.parquet is no parquet file" in page
    assert main([*arguments, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["method"] == "good"


def test_the_command_names_what_is_missing(tmp_path, capsys):
    assert main(["leaderboard", str(tmp_path / "absent")]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert main(["leaderboard", str(tmp_path)]) == 1
    assert "has no prediction" in capsys.readouterr().err
    (tmp_path / "one.csv").write_text("spot,G\na,1\n")
    assert main(["leaderboard", str(tmp_path)]) == 1
    assert "Pass --data" in capsys.readouterr().err


def test_evaluate_takes_a_file_and_writes_a_page(tissue, files, tmp_path, capsys):
    tissue.write(tmp_path / "measured.zarr")
    store = str(tmp_path / "measured.zarr")
    command = ["evaluate", store, "--prediction", str(files / "good.h5ad"), "--shapes", "B"]
    assert main([*command, "--key-added", "theirs", "--report", str(tmp_path / "r.html")]) == 0
    printed = capsys.readouterr().out
    assert "ceiling" not in printed
    assert "reproducibility" in printed
    page = (tmp_path / "r.html").read_text()
    assert "good: predicted expression of B" in page
    assert "sthisto evaluate" in page
    assert "--prediction" in page
    assert main(["report", store, "--out", str(tmp_path / "own.html"), "--genes", "gene1", "--shapes", "C"]) == 0
    assert "gene1" in (tmp_path / "own.html").read_text()
    assert main([*command[:3], "layer:sthisto_pred", "--key-added", "again", "--json"]) == 0


def test_a_single_section_is_its_own_mean_and_is_written_once(tissue, files):
    scores = sth.benchmark.leaderboard(tissue, read(files, "good.h5ad", "noisy.csv"), shapes_key="B")
    assert set(scores["section"]) == {"B", "all"}
    titles = [line for line in as_text(scores).splitlines() if line.startswith("## ")]
    assert titles == ["## B, all modeled"]
