"""ST-Net: a convolutional network with one linear output a gene (He et al., Nature Biomedical Engineering 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sthisto.models.base import ExpressionModel, stack
from sthisto.models.data import Exclude, Features, Prediction, SectionInput, TrainingSection
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.features import extract, features_identity
from sthisto.models.options import (
    BatchOptions,
    EpochOptions,
    FinetuneOptions,
    MethodOptions,
    OptimizerOptions,
    ParallelOptions,
)
from sthisto.models.torch_state import seeded
from sthisto.models.training.augment import augment, symmetries
from sthisto.models.training.loop import Batch, Gather, Training, train
from sthisto.models.training.patch_store import read_training_patches


@dataclass(frozen=True)
class _Views(MethodOptions):
    symmetries: bool = True


@dataclass(frozen=True)
class STNetOptions(ParallelOptions, OptimizerOptions, BatchOptions, EpochOptions, _Views, FinetuneOptions):
    """Options of `STNet`.

    The defaults train the linear outputs alone, on features of the frozen encoder. The paper's own: DenseNet-121 on
    patches of 224 px, ``finetune=True, batch_size=32``, 50 epochs, on the 250 most expressed genes. It used
    stochastic gradient descent (learning rate 1e-6, momentum 0.9); here it is AdamW.

    Parameters
    ----------
    finetune
        Whether the image encoder is trained too, as published.
    augment
        Whether patches are shown under random symmetries while the encoder is trained, as published.
    stain_jitter
        Spread of the stains' strength in augmentation; 0 leaves colors as they are.
    symmetries
        Whether the features of a spot are the mean over the eight symmetries of its patch, as published; this
        encodes every patch eight times.
    max_epochs, patience, batch_size, learning_rate, weight_decay
        Length of the training, batches and AdamW. Training stops after `patience` epochs that did not improve the
        validation loss.
    precision, devices, num_nodes, strategy
        Arguments of `lightning.fabric.Fabric`.
    """

    batch_size: int = 32
    learning_rate: float = 3e-5


class LinearOutputs(nn.Module):
    """One linear output a gene, on features or on the encoder that gives them.

    Parameters
    ----------
    n_features, n_genes
        Numbers of features and genes; 1024 features of DenseNet-121 and 250 genes make 256,250 parameters.
    encoder
        Trained with the outputs where it is given: the input is then uint8 patches, else features.
    """

    center: Tensor  # (n_features,)
    scale: Tensor  # ()

    def __init__(self, n_features: int, n_genes: int, encoder: Encoder | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.outputs = nn.Linear(n_features, n_genes)
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(()))

    def standardize(self, features: np.ndarray) -> None:
        """Bring frozen features (n_spots, n_features) to mean 0 each and one common scale.

        A scale of its own would blow up a feature that is almost constant in the training spots.
        """
        center = features.mean(axis=0)
        self.center.copy_(torch.from_numpy(center))
        self.scale.fill_(max(float((features - center).std()), 1e-6))

    def forward(self, image: Tensor) -> Tensor:
        """Map patches, (batch, size, size, 3), or features, (batch, n_features), to (batch, n_genes)."""
        features = image if self.encoder is None else self.encoder(image)
        return self.outputs((features - self.center) / self.scale)


class STNet(ExpressionModel):
    """Features of a patch, one linear output a gene, squared error, the mean over the eight symmetries.

    The outputs are linear, so the mean of the eight predictions is the prediction of the mean features. They start at
    the training mean of each gene.

    References
    ----------
    He et al., Integrating spatial gene expression and breast tumor morphology via deep learning, Nature Biomedical
    Engineering 2020, doi:10.1038/s41551-020-0578-x. Built from the paper's description.
    """

    method = "stnet"
    label = "ST-Net"
    Options = STNetOptions
    has_epochs = True
    has_embedding = True
    rates_confidence = True

    @classmethod
    def trains_encoder(cls, options: STNetOptions) -> bool:
        """Return whether the image encoder is fine-tuned."""
        return options.finetune

    @classmethod
    def needs_patches(cls, options: STNetOptions) -> bool:
        """Return whether patches are trained on, or seen under the symmetries."""
        return bool(options.finetune or options.symmetries)

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Train the linear outputs, and the encoder where it is fine-tuned."""
        o = self.options
        with seeded(seed):
            if o.finetune:
                self._encoder = deepcopy(self.encoder)
            data, validation = self._rows(sections, "train"), self._rows(sections, "validation")
            n_features = self.encoder.n_features(self.patch.size) if o.finetune else int(data[0].shape[1])
            self._module = LinearOutputs(n_features, len(self.genes), self.encoder if o.finetune else None)
            if not o.finetune:
                self._module.standardize(data[0].numpy())
            nn.init.normal_(self._module.outputs.weight, std=1e-3)
            with torch.no_grad():
                self._module.outputs.bias.copy_(torch.from_numpy(stack(sections, "train").mean(axis=0)))
            self.history = train(
                self._module,
                data,
                loss=self._loss,
                validation=validation if len(validation[0]) else None,
                groups=np.repeat(np.arange(len(sections)), [len(section.train) for section in sections]),
                training=Training.of(o, seed=seed),
                description=f"Fitting {self.method}",
            )

    def _loss(self, module: nn.Module, batch: Batch, gather: Gather) -> Tensor:
        image, expression = batch
        if self.options.finetune and self.options.augment and module.training:
            image = augment(image, stain=self.options.stain_jitter)
        return nn.functional.mse_loss(gather(module(image)), gather(expression))

    def _rows(self, sections: Sequence[TrainingSection], rows: str) -> Batch:
        """Return patches or frozen features of the "train" or "validation" rows, and their expression."""
        if self.options.finetune:
            images = read_training_patches(sections, rows)
        else:
            images = np.concatenate([self.embed(section.inputs)[section.rows(rows)] for section in sections])
        return torch.from_numpy(images), torch.from_numpy(stack(sections, rows))

    def predict_section(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        """Apply the linear outputs to the features."""
        self._module.cpu().eval()
        features = self._features(section)
        with torch.inference_mode():
            values = torch.from_numpy(features.values)
            expression = self._module.outputs((values - self._module.center) / self._module.scale)
        return Prediction(expression=expression.numpy(), seen=self.seen(features.fingerprint))

    def embed(self, section: SectionInput) -> np.ndarray:
        """Return the features of each spot, (n_spots, n_features) float32, the mean over the symmetries."""
        return self._features(section).values

    def appearance(self, section: SectionInput) -> Sequence[np.ndarray]:
        """Return the features as one block, (n_spots, n_features) float32, the mean over the symmetries."""
        return [self.embed(section)]

    def _features(self, section: SectionInput) -> Features:
        if not self.options.symmetries:
            return extract(section, self.encoder)
        identity = f"{features_identity(self.encoder)}-symmetries"

        def average() -> Features:
            views = [extract(view, self.encoder) for view in symmetries(section)]
            mean = np.stack([view.values for view in views]).mean(axis=0)
            return Features(np.asarray(mean, dtype=np.float32), views[0].fingerprint)

        return section.features(identity, average)

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of what was learned."""
        n_features = self.encoder.n_features(self.patch.size) if self.options.finetune else self.n_features
        return {"outputs.weight": ("genes", n_features), "center": (n_features,), "scale": ()}

    def state(self) -> dict[str, Tensor]:
        """Return the weights of the outputs, and of the encoder where it was trained."""
        return {name: value.cpu().contiguous() for name, value in self._module.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights."""
        encoder = deepcopy(self.encoder) if self.options.finetune else None
        self._module = LinearOutputs(int(state["outputs.weight"].shape[1]), len(self.genes), encoder)
        self._module.load_state_dict(dict(state))
        if encoder is not None:
            self._encoder = encoder
