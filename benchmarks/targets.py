"""How well gene sets and proportions of cell types are predicted on synthetic sections, where the truth is known.

    python benchmarks/targets.py [--method ridge] [--n-spots 300]

Holds out each of three patients in turn. Prints, for gene sets, the score of the sets against the mean score of their
genes, and for cell types the correlation with the true proportions and its error, beside the constant mean.
"""

from __future__ import annotations

import argparse

import pandas as pd

import sthisto as sth


def scores(sdata: object, methods: list[str], **arguments: object) -> pd.DataFrame:
    """Return the scores of held-out patients."""
    sth.tl.cross_validate(
        sdata, methods, seeds=1, image_encoder="efficientnet_lite0", patch_um=112, key_added="targets", **arguments
    )
    return sth.get.scores(sdata, key_added="targets")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="ridge")
    parser.add_argument("--n-spots", type=int, default=300)
    options = parser.parse_args()
    sth.settings.progress = False

    sdata = sth.datasets.synthetic(n_spots=options.n_spots, cell_types=True)
    program = sdata["expression"].var["program"].astype(str)
    sets = {name: list(genes.index) for name, genes in program.groupby(program) if name != "housekeeping"}
    columns = ["pcc_residual", "reproducibility"]
    of_sets = scores(sdata, [options.method], target_sets=sets).groupby("gene")[columns].mean()
    of_genes = scores(sdata, [options.method], genes=[gene for genes in sets.values() for gene in genes])
    of_genes = of_genes.groupby(of_genes["gene"].map(program))[columns].mean()
    table = of_sets.join(of_genes, rsuffix=" of its genes")
    table.loc["mean"] = table.mean()
    print(table.round(3).to_string())

    of_types = scores(sdata, [options.method, "mean"], target="obsm:cell_types")
    table = of_types.pivot_table(index="gene", columns="method", values=["pcc", "rmse"], aggfunc="mean")
    table.loc["mean"] = table.mean()
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
