"""How well ridge regression on frozen ImageNet features predicts the synthetic sections, and why that is not depth.

    python benchmarks/synthetic_ridge.py [--size 224] [--seed 0] [--other-seed 1]

Trains on patients P1 and P2 of one seed; tests on its patient P3 and on the three patients of another seed. Prints the
mean over genes and sections of `pcc` (log1p of counts per 10,000) and of `pcc_residual` (analytic Pearson residuals,
theta 100, all genes, clipped at sqrt(n), per section).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import sthisto as sth
from sthisto._images.patches import PatchSpec
from sthisto._scoring.measure import Measured, measure
from sthisto._scoring.score import ScoreOptions, score_genes
from sthisto._sdata.inputs import section_input
from sthisto._sdata.sections import Section, read_sections
from sthisto.models.encoders.features import extract


def embed(section: Section, size: int) -> np.ndarray:
    """Return features of a section's patches of `size` px, (n_spots, 1280)."""
    encoder = sth.models.load_encoder("efficientnet_lite0", input_size="patch")
    return extract(section_input(section, PatchSpec(size=size, um_per_px=section.um_per_px)), encoder).values


def measured(section: Section, predictions: Mapping[str, np.ndarray]) -> Measured:
    """Return what was measured on a section beside predictions of all its genes."""
    return measure(section, list(section.table.var_names), predictions)


def fit(sections: Sequence[Section], features: np.ndarray) -> dict[str, Pipeline]:
    """Return ridge on log1p expression and on residuals, of 256 principal components of the features."""
    truth = [measured(section, {}) for section in sections]
    targets = {"ridge": [one.truth for one in truth], "ridge on residuals": [one.residuals for one in truth]}
    alphas = np.logspace(0, 5, 11)
    return {
        name: make_pipeline(StandardScaler(), PCA(256, random_state=0), RidgeCV(alphas)).fit(
            features, np.concatenate(y)
        )
        for name, y in targets.items()
    }


def main() -> None:
    """Print the scores of ridge and of depth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels of a patch (0.8 µm each)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--other-seed", type=int, default=1)
    options = parser.parse_args()

    sections = read_sections(sth.datasets.synthetic(seed=options.seed))
    others = read_sections(sth.datasets.synthetic(seed=options.other_seed))
    train, held_out = sections[:2], sections[2:]
    models = fit(train, np.concatenate([embed(section, options.size) for section in train]))
    for name, tested in {"another patient": held_out, "another seed": others}.items():
        found = []
        for section in tested:
            features = embed(section, options.size)
            one = measured(section, {label: model.predict(features) for label, model in models.items()})
            found.append(one.with_depth("depth"))
        for label in ("depth", *models):
            tables = [score_genes(one, label, ScoreOptions(), references=()) for one in found]
            pcc, residual = (np.nanmean([table[column] for table in tables]) for column in ("pcc", "pcc_residual"))
            print(f"{name:16} {label:20} pcc {pcc:6.3f}   pcc_residual {residual:6.3f}")


if __name__ == "__main__":
    main()
