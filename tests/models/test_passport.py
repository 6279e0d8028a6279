import json
import logging

import numpy as np
import pandas as pd
import pytest
from tissue import GENES, PATCHES, encoder, make_section

from sthisto._utils.verdicts import VERDICTS
from sthisto.models import Color, Knn, load
from sthisto.models.encoders.describe import terms_of
from sthisto.models.manifest import sha256
from sthisto.models.passport import COLUMNS, NUMBERS, check_passport, chosen_genes


def passport(genes=GENES, seed=0):
    rng = np.random.default_rng(seed)
    table = {name: rng.uniform(0, 1, len(genes)) for name in NUMBERS}
    verdict = [VERDICTS[i % 3] for i in range(len(genes))]
    return pd.DataFrame({"gene": list(genes), "verdict": verdict, **table, "n_groups": 3, "groups": "patient"})[
        list(COLUMNS)
    ]


def fitted(cls=Color, genes=GENES, **options):
    own = encoder() if cls.uses_encoder else None
    model = cls(genes, patch=PATCHES, options=cls.make_options(options), encoder=own)
    model.fit([make_section("A"), make_section("B", seed=1)])
    return model


@pytest.fixture
def model():
    model = fitted()
    model.passport = passport()
    return model


def relist(folder):
    """Write the manifest anew, as somebody would who exchanges a file on purpose."""
    files = {file.name: sha256(file) for file in folder.iterdir() if file.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))


def test_the_passport_survives_saving(model, tmp_path):
    model.save(tmp_path / "m")
    pd.testing.assert_frame_equal(load(tmp_path / "m").passport, model.passport)
    assert load(tmp_path / "m").path == tmp_path / "m"
    assert fitted().passport is None


def test_a_changed_passport_is_refused(model, tmp_path):
    model.save(tmp_path / "m")
    file = tmp_path / "m" / "passport.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"passport.parquet is damaged or was changed"):
        load(tmp_path / "m")


def test_the_passport_of_another_model_is_refused(model, tmp_path):
    other = fitted(Knn, k=5)
    other.passport = passport(seed=1)
    model.save(tmp_path / "m")
    other.save(tmp_path / "other")
    (tmp_path / "m" / "passport.parquet").write_bytes((tmp_path / "other" / "passport.parquet").read_bytes())
    relist(tmp_path / "m")
    with pytest.raises(ValueError, match="belongs to another model"):
        load(tmp_path / "m")


def test_a_passport_without_the_file_that_the_manifest_lists_is_missed(model, tmp_path):
    model.save(tmp_path / "m")
    (tmp_path / "m" / "passport.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"no passport.parquet"):
        load(tmp_path / "m")


def test_what_is_no_parquet_file_is_refused(model, tmp_path):
    model.save(tmp_path / "m")
    (tmp_path / "m" / "passport.parquet").write_bytes(b"nothing")
    relist(tmp_path / "m")
    with pytest.raises(ValueError, match=r"passport.parquet is damaged"):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="gain"), "no column 'gain'"),
        (lambda table: table.iloc[::-1], "other genes"),
        (lambda table: table.assign(verdict="perfect"), "'perfect'"),
        (lambda table: table.assign(pcc="high"), "'pcc' holds no numbers"),
        (lambda table: table.assign(pcc_residual=2.0), "no correlations"),
        (lambda table: table.assign(ridge=-np.inf), "no correlations"),
        (lambda table: table.assign(n_groups=-3), "negative n_groups"),
        (lambda table: table.assign(verdict="use", gain_low=-0.1), "do not follow from pcc_residual_low and gain_low"),
        (lambda table: table.assign(verdict="pattern only", pcc_residual_low=np.nan), "do not follow"),
    ],
)
def test_a_passport_of_another_form_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_passport(change(passport()), GENES, name="It")


def test_a_new_fit_has_no_passport(model):
    model.fit([make_section("A")])
    assert model.passport is None
    assert model.path is None


def test_genes_by_verdict_score_and_name(model, caplog):
    caplog.set_level(logging.INFO, "sthisto")
    table = model.passport
    np.testing.assert_array_equal(chosen_genes(model, "use", None), table["verdict"] == "use")
    assert "8 of 12 genes are not predicted and NaN" in caplog.text
    np.testing.assert_array_equal(chosen_genes(model, "all", 0.5), table["pcc_residual"] >= 0.5)
    both = (table["verdict"] == "use") & (table["pcc_residual"] >= 0.3)
    np.testing.assert_array_equal(chosen_genes(model, "use", 0.3), both)
    assert np.flatnonzero(chosen_genes(model, ["gene3", "gene1"], None)).tolist() == [1, 3]
    assert chosen_genes(fitted(), "all", None).all()
    with pytest.raises(KeyError, match="the model's genes"):
        chosen_genes(model, ["nope"], None)
    with pytest.raises(ValueError, match="Lower the bar"):
        chosen_genes(model, "all", 1.0)
    for asked in (("use", None), ("all", 0.1)):
        with pytest.raises(ValueError, match=r"needs the model's passport.*sth.tl.assess"):
            chosen_genes(fitted(), *asked)


def test_the_model_card_says_what_the_model_is(model, tmp_path):
    model.facts["patients"] = ["P1", "P2"]
    model.save(tmp_path / "m", organ="breast", license="cc-by-4.0")
    text = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    import yaml

    _, metadata, body = text.split("---\n", 2)
    told = yaml.safe_load(metadata)
    assert told["license"] == "cc-by-4.0"
    assert told["library_name"] == "sthisto"
    assert "breast" in told["tags"]
    for part in ("A (49 spots), B (49 spots)", "P1, P2", "breast", "µm per px", "diagnosis", "sth.tl.fit("):
        assert part in body
    assert "**use** (4" in body
    assert all(f"| {gene} |" in body for gene in model.passport.query("verdict == 'use'")["gene"])
    again = load(tmp_path / "m")
    assert again.facts == {"patients": ["P1", "P2"], "organ": "breast", "license": "cc-by-4.0"}
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text(encoding="utf-8") == text


def test_the_card_of_a_model_that_was_not_assessed_says_so(tmp_path):
    fitted().save(tmp_path / "m")
    text = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "**Not assessed.**" in text
    assert "license_name: not-stated" in text


def test_names_cannot_break_the_card(tmp_path):
    genes = ["a|b", "<script>", "x\n---\ny", *GENES[3:]]
    model = fitted(genes=genes)
    model.passport = passport(genes)
    model.save(tmp_path / "m", organ='"breast": [\n---')
    text = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert text.count("\n---\n") == 1
    pd.testing.assert_frame_equal(load(tmp_path / "m").passport, model.passport)


def test_what_is_known_of_encoders():
    class Named:
        def __init__(self, name, weights=""):
            self.name, self.weights = name, weights

    assert terms_of(Named("efficientnet_lite0")).license == "apache-2.0"
    assert "ImageNet" in terms_of(Named("densenet121")).cohort
    assert "Mass-100K" in terms_of(Named("hf-hub:MahmoodLab/UNI")).cohort
    assert terms_of(Named("hf-hub:MahmoodLab/UNI@main")).hub_id == "MahmoodLab/UNI"
    assert "non" not in terms_of(Named("texture")).license
    assert "user's own" in terms_of(Named("module:Pool")).license
    assert "user's own" in terms_of(Named("densenet121", "local")).license
