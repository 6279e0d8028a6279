"""One method on one fold: fitted without the held-out spots, predicted without their expression, then scored."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import nn

from sthisto import __version__
from sthisto._sdata import slots
from sthisto._sdata.features import for_encoder
from sthisto._sdata.inputs import section_input
from sthisto._sdata.keys import ELEMENT_KEYS, ElementKeys
from sthisto._sdata.sections import Section, read_sections, read_tables
from sthisto._sdata.tables import gene_names, read_rows
from sthisto._splits.folds import Fold
from sthisto._splits.subset import SpotSubset, expression_layers
from sthisto._utils.digest import digest_arrays, digest_names
from sthisto._utils.files import load_arrays, load_table, save_arrays, save_table
from sthisto._utils.targets import OBSM, is_proportions
from sthisto.models import METHODS, Encoder, ExpressionModel, load_encoder
from sthisto.tl._evaluate import evaluate
from sthisto.tl._fit import fit
from sthisto.tl._predict import predict

if TYPE_CHECKING:
    from spatialdata import SpatialData

_ENCODER = ("image_encoder", "encoder_weights", "input_size", "encoder_layer")


@dataclass(frozen=True)
class FoldRun:
    """What is run: a method with its options and a seed, on a fold."""

    fold: Fold
    method: str
    seed: int
    options: Mapping[str, Any]


@dataclass(frozen=True)
class FoldContext:
    """What all runs share.

    Attributes
    ----------
    arguments
        Arguments of `tl.fit`.
    encoder
        The image encoder, loaded once; None where no method uses one.
    """

    cohort: list[SpatialData]
    sections: list[Section]
    encoder: Encoder | None
    arguments: dict[str, Any]
    counts_layer: str | None

    def finished(self, run: FoldRun, out: Path | None) -> pd.DataFrame:
        """Return the scores of a run from its file in `out`, or make and keep them."""
        if out is None:
            return self._scores(run)
        path = self.path(run, out, ".parquet")
        scores = load_table(path)
        if scores is None:
            scores = self._scores(run)
            save_table(path, scores)
        return scores

    def predictions(self, run: FoldRun, out: Path | None = None) -> dict[str, np.ndarray]:
        """Return what a run predicts, from its file in `out`, or make and keep it.

        Returns
        -------
        "genes"; "section 0", "section 1", …, (n_spots, n_genes) of each held-out section, NaN for spots that the model
        cannot predict; "seconds" of the fit and of the prediction; "siblings" and "depth_knots" of the fitted model.

        Raises
        ------
        ValueError
            A held-out spot is a training spot under another name, recognized by its pixels.
        """
        if out is None:
            return self._predictions(run)
        path = self.path(run, out, ".npz")
        arrays = load_arrays(path)
        if arrays is None:
            arrays = self._predictions(run)
            save_arrays(path, arrays)
        return arrays

    def path(self, run: FoldRun, out: Path, suffix: str) -> Path:
        """Return the file that keeps what a run found; another run, data or argument has another file."""
        fold = "".join(letter if letter.isalnum() else "-" for letter in run.fold.name)
        return out / f"{run.method}-seed{run.seed}-{fold[:60]}-{self._digest(run)[:12]}{suffix}"

    def sides(
        self, fold: Fold, features: Sequence[str] = (), proportions: Sequence[str] = ()
    ) -> tuple[SpotSubset, SpotSubset]:
        """Return the training spots, and the held-out ones without their expression; both with given features.

        Parameters
        ----------
        features, proportions
            Slots of ``obsm`` with features, and with what is learned in place of expression.
        """
        layers = expression_layers(
            [section.table for section in self.sections], self.arguments.get("layer"), self.counts_layer
        )
        known = SpotSubset(
            self.cohort, self.sections, fold.train, layers=layers, features=features, proportions=proportions
        )
        if fold.depth < 1:
            known.thin(self.arguments.get("layer"), fold.depth, fold.seed)
        return (
            known,
            SpotSubset(
                self.cohort,
                self.sections,
                fold.test,
                role=slots.TEST,
                layers=layers,
                features=features,
                proportions=proportions,
                expression=False,
            ),
        )

    def fit(self, run: FoldRun, known: SpotSubset) -> ExpressionModel:
        """Fit the run's method on the training spots; its own options go before what all runs share."""
        arguments = self._fit_arguments(known) | dict(run.options)
        return fit(known.sdata, method=run.method, seed=run.seed, **arguments)

    def keys(self, side: SpotSubset) -> ElementKeys:
        """Return which elements make up the sections of one side."""
        keys = ElementKeys(**{name: self.arguments.get(name) for name in ELEMENT_KEYS})
        return keys.for_regions(side.regions)

    def _scores(self, run: FoldRun) -> pd.DataFrame:
        known, hidden = self.sides(run.fold, *self._slots_of_obsm(run))
        start = time.perf_counter()
        model = self.fit(run, known)
        fitted = time.perf_counter()
        keys = self.keys(hidden)
        predict(hidden.sdata, model, gene_symbols=self.arguments.get("gene_symbols"), **keys.arguments())
        predicted = time.perf_counter()
        hidden.reveal()
        scored = keys.arguments()
        scored.pop("um_per_px")
        evaluate(hidden.sdata, counts_layer=self.counts_layer, n_boot=0, **scored)
        table = read_tables(hidden.sdata, keys.table_key)[0]
        scores: pd.DataFrame = table.uns[slots.KEY]["scores"].drop(columns="split")
        names = [section.name for section in read_sections(hidden.sdata, keys)]
        scores["section"] = scores["section"].map(dict(zip(names, hidden.names, strict=True)))
        for i, (name, value) in enumerate({"method": run.method, "seed": run.seed, "fold": run.fold.name}.items()):
            scores.insert(i, name, value)
        return scores.assign(seconds_fit=fitted - start, seconds_predict=predicted - fitted)

    def _predictions(self, run: FoldRun) -> dict[str, np.ndarray]:
        known, hidden = self.sides(run.fold, *self._slots_of_obsm(run))
        start = time.perf_counter()
        model = self.fit(run, known)
        fitted = time.perf_counter()
        arrays: dict[str, np.ndarray] = {"genes": np.asarray(model.genes, dtype=str)}
        for i, section in enumerate(read_sections(hidden.sdata, self.keys(hidden))):
            (predicted,) = for_encoder([section], model.encoder if model.has_encoder else None)
            prediction = model.predict(section_input(predicted, model.patch))
            if prediction.seen.any():
                msg = (
                    f"{prediction.seen.sum()} of the spots of test section {section.name!r} are training spots under "
                    "another name: their pixels are the same. Leave one of the sections out."
                )
                raise ValueError(msg)
            expression = np.full((len(section), len(model.genes)), np.nan, dtype=np.float32)
            expression[np.isin(section.rows, predicted.rows)] = prediction.expression
            arrays[f"section {i}"] = expression
        arrays["seconds"] = np.array([fitted - start, time.perf_counter() - fitted])
        arrays["siblings"], arrays["depth_knots"] = model.siblings, np.asarray(model.depth_knots, dtype=float)
        return arrays

    def _slots_of_obsm(self, run: FoldRun) -> tuple[list[str], list[str]]:
        """Return the slots of ``obsm`` with features, and those with proportions, that a run is fitted on."""
        return slots_of_obsm(self.arguments | dict(run.options))

    def _fit_arguments(self, withheld: SpotSubset) -> dict[str, Any]:
        own = {name: value for name, value in self.arguments.items() if name not in (*ELEMENT_KEYS, *_ENCODER)}
        if self.encoder is not None:
            own["image_encoder"] = self.encoder
        return own | self.keys(withheld).arguments()

    def _digest(self, run: FoldRun) -> str:
        """Return what changes with anything that the scores of a run depend on, but pixels."""
        arrays: dict[str, np.ndarray] = {}
        for i, section in enumerate(self.sections):
            parts = [run.fold.train[i], run.fold.test[i], section.centers, np.array(section.um_per_px or 0.0)]
            for layer in dict.fromkeys((self.arguments.get("layer"), self.counts_layer)):
                values = read_rows(section, layer)
                parts += [values.data, values.indices, values.indptr]
            named = sorted({key for keys in self._slots_of_obsm(run) for key in keys})
            parts += [np.asarray(section.table.obsm[key])[section.rows] for key in named if key in section.table.obsm]
            arrays |= {f"{i}-{j}": np.asarray(part) for j, part in enumerate(parts)}
        names = [name for section in self.sections for name in (section.name, section.image_key)]
        symbols = self.arguments.get("gene_symbols")
        genes = digest_names(str(name) for section in self.sections for name in gene_names(section.table, symbols))
        shared = {name: value for name, value in self.arguments.items() if name not in _ENCODER}
        texts = [
            f"{name}={_text(value)}" for mapping in (shared, run.options) for name, value in sorted(mapping.items())
        ]
        encoder = "" if self.encoder is None else self.encoder.digest()
        if run.fold.depth < 1:
            texts += [f"depth={run.fold.depth}", f"depth_seed={run.fold.seed}"]
        labels = (__version__, run.method, str(run.seed), str(self.counts_layer), encoder, genes, *names, *texts)
        return digest_arrays(arrays, *labels)


def slots_of_obsm(arguments: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the slots of ``obsm`` with features, and those with proportions, that arguments of `tl.fit` name."""
    features, target = arguments.get("features") or [], arguments.get("target") or ""
    named = [features] if isinstance(features, str) else list(features)
    return (
        [name.removeprefix(OBSM) for name in named if name.startswith(OBSM)],
        [target.removeprefix(OBSM)] if is_proportions(target) else [],
    )


def _text(value: Any) -> str:
    """Return an untruncated text key of a value: the repr of a long array or index leaves out its middle."""
    if isinstance(value, nn.Module):
        return load_encoder(value).digest()
    if isinstance(value, Mapping):
        return repr({name: _text(inner) for name, inner in sorted(value.items())})
    return repr(value if isinstance(value, str) or not isinstance(value, Iterable) else list(value))


def load_shared_encoder(methods: Sequence[str], arguments: Mapping[str, Any]) -> Encoder | None:
    """Return the image encoder that arguments of `tl.fit` name, None where none is used or features are given."""
    if not any(METHODS[name].uses_encoder for name in methods) or slots_of_obsm(arguments)[0]:
        return None
    image_encoder = arguments.get("image_encoder")
    defaults = {METHODS[name].default_encoder for name in methods if METHODS[name].uses_encoder}
    if image_encoder is None and len(defaults) > 1:  # each fit loads its own
        return None
    return load_encoder(
        defaults.pop() if image_encoder is None else image_encoder,
        weights=arguments.get("encoder_weights"),
        input_size=arguments.get("input_size"),
        layer=arguments.get("encoder_layer"),
    )
