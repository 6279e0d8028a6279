"""The command `sthisto fit`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthisto._utils.arguments import read_value
from sthisto.cli.completion import completed, encoder_names, method_names
from sthisto.cli.options import add_command, add_data, add_store_out, element_keys, method_options, read_names
from sthisto.cli.output import print_table
from sthisto.cli.stores import out_paths, read_stores, refuse_existing, write_stores

if TYPE_CHECKING:
    import pandas as pd

_N_EPOCHS = 5


def add(commands: Any) -> None:
    """Add `fit` to the commands."""
    parser = add_command(
        commands,
        "fit",
        run,
        "Fit a method on a SpatialData store and save the model; interrupted, the same command goes on.",
        "sthisto fit sections.zarr --model liver.sthisto --method danet --option k=50",
    )
    add_data(parser, several=True)
    parser.add_argument("--model", type=Path, required=True, help="folder that the model is saved to")
    add_store_out(parser, what="where the data are written with embeddings and the record of the fit")
    completed(parser.add_argument("--method", default="danet", help="name of the method"), method_names)
    encoder = parser.add_argument(
        "--image-encoder", help="timm name, hf-hub: id, texture, or efficientnet_lite0; default: the method's"
    )
    completed(encoder, encoder_names)
    parser.add_argument("--genes", type=Path, help="file with one gene per line; default: highly variable genes")
    parser.add_argument("--target-sets", type=Path, help="GMT file of gene sets to model in place of genes")
    parser.add_argument("--target", help="log1p, pearson_residuals, as_is, or obsm:KEY for proportions of cell types")
    parser.add_argument("--layer", help="layer with the expression; default: X")
    parser.add_argument("--patch-size", type=int, help="width of a patch in px; default: 224, or that of --patch-um")
    parser.add_argument("--patch-um", type=float, help="width of tissue in µm that a patch covers")
    parser.add_argument("--um-per-px", type=float, help="µm per px of the images' full resolution")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    parser.add_argument("--devices", type=read_value, help="number of devices, or 'auto'")
    parser.add_argument("--num-nodes", type=int, help="number of machines")
    parser.add_argument("--strategy", help="strategy of Lightning Fabric, for example 'ddp'")
    parser.add_argument("--precision", help="'32-true', 'bf16', …")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the method, for example max_epochs=10; may be repeated",
    )


def run(options: argparse.Namespace) -> None:
    """Fit, save the model and print its history."""
    if not options.overwrite:
        refuse_existing(options.model, "Choose another --model, or pass --overwrite.")
    paths = out_paths(options.data, options.out, overwrite=options.overwrite)
    stores = read_stores(options.data)

    import sthisto as sth
    from sthisto.models.bundle import check_target
    from sthisto.models.training.checkpoint import remove_checkpoint
    from sthisto.models.training.devices import is_first_process

    check_target(options.model, overwrite=True)
    checkpoint = options.model.with_name(f"{options.model.name}.checkpoint")
    parallel = {name: getattr(options, name) for name in ("devices", "num_nodes", "strategy", "precision")}
    model = sth.tl.fit(
        stores,
        method=options.method,
        image_encoder=options.image_encoder,
        genes=None if options.genes is None else read_names(options.genes),
        target_sets=options.target_sets,
        target=options.target,
        layer=options.layer,
        patch_size=options.patch_size,
        patch_um=options.patch_um,
        um_per_px=options.um_per_px,
        seed=options.seed,
        checkpoint=checkpoint,
        **element_keys(options),
        **{name: value for name, value in parallel.items() if value is not None},
        **method_options(options.option),
    )
    if is_first_process():
        model.save(options.model, overwrite=True)
        remove_checkpoint(checkpoint)
        write_stores(stores if paths else [], paths, overwrite=options.overwrite)
    print_table(model.history if options.json else _last_epochs(model.history, options), options)
    if not (options.json or options.quiet):
        print(f"{options.model} holds the model: {repr(model).strip('<>')}.")


def _last_epochs(history: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    """Return the last epochs without the losses that were never computed, and print how many epochs there were."""
    if len(history) > _N_EPOCHS and not options.quiet:
        print(f"The last {_N_EPOCHS} of {len(history)} epochs:")
    return history.dropna(axis="columns", how="all").tail(_N_EPOCHS)
