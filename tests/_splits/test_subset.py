import anndata as ad
import numpy as np
import pytest
from tissue import make_tissue, mark_split

import sthisto as sth
from sthisto._sdata.sections import read_sections
from sthisto._sdata.tables import read_rows
from sthisto._splits.subset import SpotSubset, expression_layers


@pytest.fixture
def tissue():
    return make_tissue("AB", seed=4)


def first_half(sections):
    return [np.arange(len(section)) < len(section) // 2 for section in sections]


def test_spots_keep_their_expression_in_tables_of_their_own(tissue):
    sections = read_sections(tissue)
    subset = SpotSubset([tissue], sections, first_half(sections))
    for section, part in zip(sections, read_sections(subset.sdata), strict=True):
        half = len(section) // 2
        np.testing.assert_array_equal(read_rows(part, None).toarray(), read_rows(section, None).toarray()[:half])
        np.testing.assert_allclose(part.centers, section.centers[:half])
    subset.sdata[0]["counts"].obs["mark"] = 1
    assert "mark" not in tissue["counts"].obs


def test_expression_is_zero_until_it_is_revealed_and_the_role_is_written(tissue):
    mark_split(tissue, {"A": "train", "B": "train"})
    sections = read_sections(tissue)
    subset = SpotSubset([tissue], sections, first_half(sections), role="test", expression=False)
    table = subset.sdata[0]["counts"]
    assert table.X.sum() == 0
    assert set(table.obs["sthisto_split"]) == {"test"}
    subset.reveal()
    assert table.X.sum() > 0


def test_sections_without_a_chosen_spot_are_left_out(tissue):
    sections = read_sections(tissue)
    chosen = [np.ones(len(sections[0]), dtype=bool), np.zeros(len(sections[1]), dtype=bool)]
    subset = SpotSubset([tissue], sections, chosen)
    assert (subset.names, subset.regions) == (["A"], ["A"])
    assert [section.name for section in read_sections(subset.sdata)] == ["A"]


def test_a_choice_of_genes_that_saw_other_spots_stays_behind_and_a_panel_is_kept(tissue):
    sections = read_sections(tissue)
    sth.pp.select_genes(tissue, n_top_genes=5)
    assert "sthisto_selected" not in SpotSubset([tissue], sections, first_half(sections)).sdata[0]["counts"].var
    sth.pp.select_genes(tissue, ["gene3"])
    assert "sthisto_selected" in SpotSubset([tissue], sections, first_half(sections)).sdata[0]["counts"].var


def test_counts_in_raw_are_given_back_too(tissue):
    table = tissue["counts"]
    table.raw = ad.AnnData(table.X.copy(), var=table.var[[]])
    table.X = np.log1p(table.X.toarray())
    assert expression_layers([table], None, "raw", "nothing") == ["raw"]
    sth.tl.cross_validate(tissue, "color", groups="section", seeds=1, layer="raw", counts_layer="raw", patch_size=16)
    scores = sth.get.scores(tissue, key_added="sthisto_cv", by="section")
    assert np.isfinite(scores.loc[scores["section"] == "all", "pcc_residual"]).all()
