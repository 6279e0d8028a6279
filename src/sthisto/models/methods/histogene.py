"""HisToGene: a transformer over all spots of a section (Pang et al., bioRxiv 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from sthisto._images.patches import PatchSource
from sthisto._images.pitch import median_pitch
from sthisto._utils.validate import check_positive
from sthisto.models.base import ExpressionModel
from sthisto.models.data import Exclude, FinePrediction, Prediction, SectionInput, TrainingSection
from sthisto.models.encoders.features import extract
from sthisto.models.options import EpochOptions, MethodOptions, OptimizerOptions, PrecisionOptions
from sthisto.models.torch_state import seeded
from sthisto.models.training.loop import Batch, Gather, Training, train
from sthisto.nn import Transformer


@dataclass(frozen=True)
class _Tokens(MethodOptions):
    width: int = 256
    n_blocks: int = 4
    n_heads: int = 8
    dropout: float = 0.1
    n_positions: int = 128


@dataclass(frozen=True)
class HisToGeneOptions(PrecisionOptions, OptimizerOptions, EpochOptions, _Tokens):
    """Options of `HisToGene`.

    The defaults are smaller than the paper's, for training on a few sections. The paper's own: ``image_encoder=
    torch.nn.Flatten()``, which hands over the 37,632 values of a patch of 112 px, and ``width=1024, n_blocks=8,
    n_heads=16, n_positions=64, learning_rate=1e-5``.

    Parameters
    ----------
    width, n_blocks, n_heads, dropout
        Width, depth, heads and dropout of the transformer; the perceptron in a block is twice as wide.
    n_positions
        Positions along each axis of the array that have an embedding.
    max_epochs, patience, learning_rate, weight_decay
        Length of the training and AdamW; every section is one batch. Training stops after `patience` epochs that did
        not improve the validation loss.
    precision
        Precision of the training, an argument of `lightning.fabric.Fabric`.
    """

    max_epochs: int = 100
    patience: int = 20
    learning_rate: float = 1e-4


class SpotTransformer(nn.Module):
    """Spots as tokens: ``outputs(LN(T(W f + X[x] + Y[y])))``, each section by itself.

    Parameters
    ----------
    n_features, n_genes
        Numbers of features and genes of a spot.
    options
        The sizes.
    """

    def __init__(self, n_features: int, n_genes: int, options: HisToGeneOptions) -> None:
        super().__init__()
        width = options.width
        self.patch = nn.Linear(n_features, width)
        self.x_position = nn.Embedding(options.n_positions, width)
        self.y_position = nn.Embedding(options.n_positions, width)
        self.dropout = nn.Dropout(options.dropout)
        self.transformer = Transformer(
            options.n_blocks, width=width, n_heads=options.n_heads, mlp_width=2 * width, dropout=options.dropout
        )
        self.norm = nn.LayerNorm(width)
        self.outputs = nn.Linear(width, n_genes)

    def forward(self, features: Tensor, position: Tensor, section: Tensor) -> Tensor:
        """Map (n_spots, n_features) at array positions (n_spots, 2) of numbered sections to (n_spots, n_genes)."""
        tokens = self.patch(features) + self.x_position(position[:, 0]) + self.y_position(position[:, 1])
        tokens = self.dropout(tokens)
        expression = tokens.new_empty(len(tokens), self.outputs.out_features)
        for number in section.unique():
            rows = section == number
            expression[rows] = self.outputs(self.norm(self.transformer(tokens[rows][None])[0])).to(expression.dtype)
        return expression


class HisToGene(ExpressionModel):
    """All spots of a section attend to each other; each has learned embeddings of its x and y on the array.

    The paper's sizes: patches of 112 x 112 x 3 pixels, linear to 1024; 64 positions an axis; 8 blocks of 16 heads;
    106,672,913 parameters with 785 genes. Every spot of a section is a token, the ones without expression too; the
    squared error is taken where expression may be learned from.

    References
    ----------
    Pang, Su and Li, Leveraging information in spatial transcriptomics to predict super-resolution gene expression from
    histology images in tumors, bioRxiv 2021, doi:10.1101/2021.11.28.470212. Built from the paper's description.
    """

    method = "histogene"
    label = "HisToGene"
    Options = HisToGeneOptions
    has_epochs = True
    predicts_between = True
    rates_confidence = True

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Train the transformer; every section is one batch."""
        o = self.options
        features = [extract(section.inputs, self.encoder).values for section in sections]
        known = np.concatenate([f[s.train] for f, s in zip(features, sections, strict=True)])
        self._center = known.mean(axis=0)
        self._scale = np.maximum((known - self._center).std(), 1e-6).astype(np.float32)
        tokens = [self._tokens(section.inputs, f) for section, f in zip(sections, features, strict=True)]
        section_of = torch.from_numpy(np.repeat(np.arange(len(sections)), [len(f) for f in features]))
        shared = (torch.cat([t[0] for t in tokens]), torch.cat([t[1] for t in tokens]), section_of)
        expression = torch.from_numpy(np.nan_to_num(np.concatenate([section.expression for section in sections])))
        has_validation = any(len(section.validation) for section in sections)
        with seeded(seed):
            self._module = SpotTransformer(known.shape[1], len(self.genes), o)
            mean = np.concatenate([section.expression[section.train] for section in sections]).mean(axis=0)
            nn.init.normal_(self._module.outputs.weight, std=1e-3)
            with torch.no_grad():
                self._module.outputs.bias.copy_(torch.from_numpy(mean))
            self.history = train(
                self._module,
                (*shared, expression, _mask(sections, "train")),
                loss=_loss,
                validation=(*shared, expression, _mask(sections, "validation")) if has_validation else None,
                groups=section_of.numpy(),
                training=Training.of(o, batch_size=1, batch_by="section", seed=seed),
                description=f"Fitting {self.method}",
            )

    def predict_section(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        """Apply the transformer to all spots of the section."""
        features = extract(section, self.encoder)
        return Prediction(expression=self._evaluate(section, features.values), seen=self.seen(features.fingerprint))

    def predict_between(self, section: SectionInput, *, factor: int = 2) -> FinePrediction:
        """Predict between the spots of a section: its super-resolution.

        Parameters
        ----------
        section
            Its images, whose spots lie on a lattice.
        factor
            Points along each axis for every spot: 2 makes four, a quarter of the spots' distance beside its center.

        Returns
        -------
        `FinePrediction`. Each shift of the lattice is predicted as one section, so that the transformer sees as many
        tokens, as far apart, as it was trained on.
        """
        check_positive(factor, name="factor")
        steps = (np.arange(factor) + 0.5) / factor - 0.5
        shifts = np.array([(x, y) for y in steps for x in steps])
        moved = [_shifted(section, shift) for shift in shifts]
        expression = [self._evaluate(part, extract(part, self.encoder).values) for part in moved]
        spot = np.tile(np.arange(len(section)), len(shifts))
        return FinePrediction(np.concatenate([part.positions for part in moved]), spot, np.concatenate(expression))

    def _evaluate(self, section: SectionInput, features: np.ndarray) -> np.ndarray:
        if not len(section):
            return np.empty((0, len(self.genes)), dtype=np.float32)
        self._module.cpu().eval()
        with torch.inference_mode():
            tokens = self._tokens(section, features)
            return np.asarray(self._module(*tokens, torch.zeros(len(section), dtype=torch.long)).numpy())

    def _tokens(self, section: SectionInput, features: np.ndarray) -> tuple[Tensor, Tensor]:
        position = array_positions(section.positions)
        if len(position) and position.max() >= self.options.n_positions:
            msg = (
                f"The spots of section {section.name!r} span {position.max() + 1} positions, but the model has "
                f"n_positions={self.options.n_positions}. Fit with more of them."
            )
            raise ValueError(msg)
        return torch.from_numpy((features - self._center) / self._scale), torch.from_numpy(position)

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of what was learned."""
        width, n_positions = self.options.width, self.options.n_positions
        return {
            "center": (self.n_features,),
            "scale": (),
            "patch.weight": (width, self.n_features),
            "x_position.weight": (n_positions, width),
            "outputs.weight": ("genes", width),
        }

    def state(self) -> dict[str, Tensor]:
        """Return the weights, and what standardizes the features."""
        weights = {name: value.cpu().contiguous() for name, value in self._module.state_dict().items()}
        return weights | {"center": torch.from_numpy(self._center), "scale": torch.tensor(self._scale)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights, and what standardizes the features."""
        weights = dict(state)
        self._center, self._scale = weights.pop("center").numpy(), weights.pop("scale").numpy()
        self._module = SpotTransformer(len(self._center), len(self.genes), self.options)
        self._module.load_state_dict(weights)


def array_positions(xy: np.ndarray) -> np.ndarray:
    """Return the x and y of spots on the array, (n, 2) whole numbers from 0: px in units of the spots' distance."""
    if len(xy) < 2:
        return np.zeros((len(xy), 2), dtype=np.int64)
    return np.rint((xy - xy.min(axis=0)) / median_pitch(xy)).astype(np.int64)


def _shifted(section: SectionInput, shift: np.ndarray) -> SectionInput:
    """Move all spots by a share of their distance, (2,) in x and y, as far as the image reaches."""
    if len(section) < 2:
        msg = f"Section {section.name!r} has {len(section)} spots; between them there is nothing to predict."
        raise ValueError(msg)
    sources = []
    for source in section.patches:
        centers = source.centers + shift * median_pitch(source.centers)
        inside = np.clip(centers, 0, [source.level.width - 1, source.level.height - 1])
        sources.append(PatchSource(source.level, inside, extent=source.extent, size=source.size))
    return replace(section, patches=sources, positions=section.positions + shift * median_pitch(section.positions))


def _mask(sections: Sequence[TrainingSection], rows: str) -> Tensor:
    masks = []
    for section in sections:
        mask = np.zeros(len(section.inputs), dtype=bool)
        mask[section.rows(rows)] = True
        masks.append(mask)
    return torch.from_numpy(np.concatenate(masks))


def _loss(module: nn.Module, batch: Batch, gather: Gather) -> Tensor:
    features, position, section, expression, known = batch
    predicted = module(features, position, section)
    return (predicted - expression)[known].square().sum() / (known.sum().clamp_min(1) * expression.shape[1])
