"""The page to send: whole, safe, small, and about the prediction alone."""

import base64
import io
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tissue import GENES, PATCH, make_tissue, mark_split

import sthisto as sth
from sthisto.report.page import Block, Page, Table, as_cell, with_interval
from sthisto.report.pictures import MOST_BYTES, encode, share_of

EVIL = "<script>alert('x')</script>"


class Reader(HTMLParser):
    """Collects tags, what they load, headings, and pictures with their alternative text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loaded, self.headings, self.pictures, self.words, self._stack = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self._stack.append(tag)
        self.loaded += [attrs[name] for name in ("src", "href", "data", "poster", "srcset") if name in attrs]
        if tag == "img":
            self.pictures.append(attrs)

    def handle_endtag(self, tag):
        while self._stack and self._stack.pop() != tag:
            pass

    def handle_data(self, data):
        if self._stack and self._stack[-1] in ("h1", "h2"):
            self.headings.append(data)
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def tissue():
    """Three sections, predicted and scored, and somebody's prediction of the same spots."""
    tissue = make_tissue("ABC")
    mark_split(tissue, {"A": "train", "B": "test", "C": "test"})
    for method in ("color", "mean"):
        model = sth.tl.fit(tissue, method=method, patch_size=PATCH, genes=GENES[:8], key_added=method)
        sth.tl.predict(tissue, model, key_added=method)
        sth.tl.evaluate(tissue, key_added=method, n_boot=100, n_splits=2)
    sent = sth.get.anndata(tissue, key_added="color")
    sent.uns["sthisto_prediction"] = f"{EVIL} $\\frac$"
    sth.tl.evaluate(tissue, prediction=sent, key_added="theirs", n_boot=100, n_splits=2)
    return tissue


@pytest.fixture(scope="module")
def page(tissue, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    sth.tl.report(tissue, out=path, key_added="color", genes=GENES[:2])
    return path.read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere(page):
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"data:image/webp;base64,[\w+/=]+", "", page))
    found = Reader(page)
    assert all(source.startswith("data:image/webp;base64,") for source in found.loaded)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert "default-src 'none'" in page


def test_it_says_what_was_trained_on_what_with_scores_references_and_how_to_repeat(tissue, page):
    found = Reader(page)
    assert found.headings[0].startswith("Color: predicted expression of A, B, C")
    assert found.headings[1:] == [
        "Beware",
        "What was trained on what",
        "Scores",
        "Maps",
        "Confidence: which spots",
        "Versions and how to repeat it",
    ]
    overall = sth.get.scores(tissue, key_added="color", by="section").query("section == 'all'").iloc[0]
    assert f"{overall['pcc_residual']:.3f}" in found.text
    assert f"{overall['sibling']:.3f}" in found.text
    assert f"{overall['reproducibility']:.3f}" in found.text
    assert "The model was trained on spots of A" in found.text
    assert f"sthisto {sth.__version__}" in " ".join(found.text.split())
    assert "sth.tl.report(sdata, out='report.html', key_added='color')" in found.text
    assert "Mean" in found.text


def test_every_picture_has_a_text_and_tables_have_heads_and_captions(page):
    found = Reader(page)
    assert len(found.pictures) == 6  # scores, a map for each section, the confidence and its curve
    assert all(len(picture["alt"]) > 20 for picture in found.pictures)
    assert found.tags.count("caption") == found.tags.count("table") > 3
    assert found.tags.count("h1") == 1
    assert 'lang="en"' in page
    assert 'name="viewport"' in page


def test_names_are_escaped_and_drawn_as_they_are(tissue, tmp_path):
    sth.tl.report(tissue, out=tmp_path / "theirs.html", key_added="theirs", genes="gene0")
    text = (tmp_path / "theirs.html").read_text(encoding="utf-8")
    found = Reader(text)
    assert "script" not in found.tags
    assert EVIL in found.headings[0]
    assert "was not made by sthisto" in found.text
    assert "not known" in found.text


def test_intervals_and_the_curve_of_confidence_stand_on_the_page_with_whom_they_hold_for(tmp_path):
    tissue = make_tissue("ABC", patients={"A": "P1", "B": "P2", "C": "P3"}, side=9)
    sth.pp.split(tissue, by="patient", patient_key="patient", test=["P3"], calibration=0.3, margin=4)
    model = sth.tl.fit(tissue, method="color", patch_size=PATCH, genes=GENES[:8])
    sth.tl.predict(tissue, model, interval=0.8)
    sth.tl.evaluate(tissue, n_boot=50, n_splits=2)
    sth.tl.report(tissue, out=tmp_path / "report.html")
    found = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Intervals: how far off" in found.headings
    assert "Intervals at 80%" in found.text
    assert "They hold for the same patients. There were too few calibration patients" in found.text
    table = tissue["counts"]
    rows = np.flatnonzero(table.obs["region"] == "C")
    counts = table.X[rows].toarray()
    truth = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)[:, :8]
    within = (table.layers["sthisto_low"][rows, :8] <= truth) & (truth <= table.layers["sthisto_high"][rows, :8])
    assert f"{within.mean():.1%}" in found.text
    told = [picture["alt"] for picture in found.pictures]
    assert any("share of the measured values within their intervals" in one for one in told)
    assert any("most confident spots" in one for one in told)
    ax = sth.pl.intervals(tissue)
    assert f"{within.mean():.0%} within 80%, same patients" in ax.get_legend().get_texts()[0].get_text()
    plt.close(ax.figure)


@pytest.mark.parametrize(("confidence", "is_told"), [(0.3, False), (0.01, True)])
def test_sections_that_predict_warns_of_are_told_and_those_as_unlike_as_a_new_patient_are_not(
    tissue, tmp_path, confidence, is_told
):
    obs = tissue["counts"].obs
    before = obs["color_confidence"].copy()
    obs.loc[obs["region"] == "C", "color_confidence"] = confidence
    sth.tl.report(tissue, out=tmp_path / "report.html", key_added="color", genes=GENES[0])
    obs["color_confidence"] = before
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("100% of the spots of C look unlike" in text) == is_told


def test_intervals_that_were_not_asked_for_are_an_error(tissue):
    with pytest.raises(KeyError, match="no intervals under key_added='color'"):
        sth.pl.intervals(tissue, key_added="color")


def test_a_prediction_without_scores_says_how_to_get_them(tmp_path):
    tissue = make_tissue("AB")
    model = sth.tl.fit(tissue, method="color", patch_size=PATCH, genes=GENES[:8])
    sth.tl.assess(tissue, model)
    sth.tl.predict(tissue, model)
    tissue["counts"].obs["sthisto_confidence"] = np.linspace(0, 0.08, tissue["counts"].n_obs)
    tissue["counts"].obs["sthisto_blur"] = 3.0
    sth.tl.report(
        tissue,
        out=tmp_path / "report.html",
        shapes_key="A",
        alignment=pd.DataFrame({"section": [EVIL], "shift_um": [12.0]}),
    )
    found = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "sth.tl.evaluate(sdata, key_added='sthisto')" in found.text
    assert "sthisto evaluate predicted.zarr --out evaluated.zarr" in found.text
    assert "--out scores.csv writes the scores alone" in found.text
    assert "There is no split" in found.text
    assert "look unlike what the model was trained on" in found.text
    counts = sth.get.passport(model)["verdict"].value_counts()
    assert f"do not use: {counts.get('do not use', 0)} genes" in found.text
    for heading in ("Passport: which genes", "Confidence: which spots", "Alignment", "Quality of the image"):
        assert heading in found.headings
    assert "script" not in found.tags


def test_a_table_of_predictions_alone_is_reported_without_a_measurement(tmp_path):
    tissue = make_tissue("AB")
    model = sth.tl.fit(tissue, method="color", patch_size=PATCH, genes=GENES[:8])
    sth.tl.predict(tissue, model, new_table_key="slide")
    sth.tl.report(tissue, out=tmp_path / "report.html", table_key="slide", shapes_key="A")
    found = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Nothing was measured" in found.text
    assert "Predicted expression" in found.pictures[0]["alt"]


def test_an_unknown_key_or_gene_leaves_no_file_and_no_figure(tissue, tmp_path):
    before = plt.get_fignums()
    with pytest.raises(KeyError, match="keys with predictions"):
        sth.tl.report(tissue, out=tmp_path / "report.html", key_added="nope")
    with pytest.raises(KeyError, match="the predicted genes"):
        sth.tl.report(tissue, out=tmp_path / "report.html", key_added="color", genes=["gene0", "nope"])
    assert not list(tmp_path.iterdir())
    assert plt.get_fignums() == before


@pytest.mark.parametrize("n", [1, 12, 25])
def test_pictures_of_a_page_stay_below_five_megabytes_together(n):
    assert n * share_of(n) * 4 / 3 <= 4.6e6
    assert share_of(n) <= MOST_BYTES


@pytest.mark.parametrize("most_bytes", [4_000, 60_000])
def test_a_picture_is_made_smaller_until_it_fits(most_bytes):
    figure, ax = plt.subplots(figsize=(6, 4))
    ax.imshow(np.random.default_rng(0).random((400, 600)))
    picture = encode(figure, alt="noise", caption="", most_bytes=most_bytes)
    encoded = base64.b64decode(picture.source.partition(",")[2])
    assert len(encoded) <= most_bytes
    assert Image.open(io.BytesIO(encoded)).format == "WEBP"
    assert picture.width == 576
    assert not plt.fignum_exists(figure.number)


def test_cells_are_rounded_and_missing_ones_are_a_dash():
    cells = [as_cell(value) for value in (1.23456, -0.5, 12345, "a", None, float("nan"), True)]
    assert cells == ["1.235", "\N{MINUS SIGN}0.500", "12,345", "a", "\N{EN DASH}", "\N{EN DASH}", "True"]
    assert with_interval(0.5, float("nan"), 0.6) == "0.500"
    assert with_interval(0.5, 0.4, 0.6) == "0.500 [0.400, 0.600]"


def test_a_page_escapes_text_everywhere():
    block = Block(EVIL, [EVIL], [EVIL], [Table(EVIL, [EVIL], [[EVIL]], folded=True)], code=EVIL)
    text = Page(EVIL, EVIL, [block]).html()
    assert "<script" not in text
    assert Reader(text).text.count(EVIL) == 11
