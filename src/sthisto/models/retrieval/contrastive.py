"""Methods that align an image embedding with a gene embedding and retrieve from the aligned bank."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sthisto.models.base import stack
from sthisto.models.data import Features, SectionInput, TrainingSection
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.inference import Batches
from sthisto.models.retrieval.model import RetrievalModel
from sthisto.models.torch_state import seeded
from sthisto.models.training.augment import augment
from sthisto.models.training.devices import torch_device
from sthisto.models.training.gather import Gather
from sthisto.models.training.harmony import Correction, correct, fit_harmony, split_state
from sthisto.models.training.loop import Batch, Interrupted, Training, train
from sthisto.models.training.patch_store import read_training_patches
from sthisto.nn import contrastive_loss

_ROWS_AT_ONCE = 1024


class TwoTowers(nn.Module):
    """Image side and gene side, each ending in the shared space.

    Parameters
    ----------
    image_head
        (batch, n_features) to (batch, n_dimensions).
    gene_encoder, gene_head
        (batch, n_genes) to (batch, n_genes), and that to (batch, n_dimensions).
    encoder
        Trained with the heads where it is given: the image side then takes uint8 patches, else features.
    """

    def __init__(
        self, *, image_head: nn.Module, gene_encoder: nn.Module, gene_head: nn.Module, encoder: Encoder | None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_head = image_head
        self.gene_encoder = gene_encoder
        self.gene_head = gene_head

    def forward(self, image: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Embed patches or features, and expression: two (batch, n_dimensions)."""
        features = image if self.encoder is None else self.encoder(image)
        return self.image_head(features), self.gene_head(self.gene_encoder(expression))


class ContrastiveModel(RetrievalModel):
    """Base of DANet and BLEEP: contrastive alignment, then top-K retrieval by cosine.

    A subclass says in `towers` what the two sides are made of. Its options derive from `FinetuneOptions`,
    `AlignmentOptions`, `RetrievalOptions` and `TrainingOptions`, and name `embedding_dim`, the width of the shared
    space.
    """

    has_epochs = True
    has_embedding = True
    has_gene_embedding = True
    _module: TwoTowers
    _correction: Correction | None = None

    @abstractmethod
    def towers(self, n_features: int, encoder: Encoder | None) -> TwoTowers:
        """Return the two sides.

        Parameters
        ----------
        n_features
            Features that the image side is given for each spot.
        encoder
            Image encoder to be trained with them; None where the image side is given features.
        """

    @classmethod
    def trains_encoder(cls, options: Any) -> bool:
        """Return whether the image encoder is fine-tuned."""
        return bool(options.finetune)

    def embed(self, section: SectionInput) -> np.ndarray:
        """Return the image embedding of every spot, (n_spots, n_dimensions) float32."""
        return self.queries(self.image_features(section))

    def embed_genes(self, expression: np.ndarray) -> np.ndarray:
        """Return the gene embedding of (n_spots, n_genes) normalized expression, (n_spots, n_dimensions) float32."""
        seen = expression if self._correction is None else self._correction(expression)
        return _in_batches(lambda x: self._module.gene_head(self._module.gene_encoder(x)), self._module, seen)

    def queries(self, features: Features) -> np.ndarray:
        """Return the image embeddings, (n_spots, embedding_dim)."""
        return _in_batches(self._module.image_head, self._module, features.values)

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Align the two sides, then fill the bank with gene embeddings."""
        _check_pairs(sections, self.options.batch_size)
        with seeded(seed):
            harmony = self.options.batch_correction == "harmony"
            self._correction = fit_harmony(sections, seed=seed) if harmony else None
            shown = sections if self._correction is None else correct(sections, self._correction)
            if self.options.finetune:
                self._encoder = deepcopy(self.encoder)
            spots = self._rows(shown, "train")
            n_features = self.encoder.n_features(self.patch.size) if self.options.finetune else int(spots[0].shape[1])
            self._module = self.towers(n_features, self.encoder if self.options.finetune else None)
            try:
                self.history = train(
                    self._module,
                    spots,
                    loss=self._loss,
                    validation=self._rows(shown, "validation") if _has_validation(sections) else None,
                    groups=np.repeat(np.arange(len(sections)), [len(section.train) for section in sections]),
                    training=Training.of(self.options, seed=seed),
                    description=f"Fitting {self.method}",
                )
            except Interrupted:
                self._keep(sections)
                raise
            self._keep(sections)

    def _rows(self, sections: Sequence[TrainingSection], rows: str) -> Batch:
        """Return what the image side sees of the "train" or "validation" rows, and their expression."""
        if self.options.finetune:
            images = read_training_patches(sections, rows)
        else:
            features = [self.image_features(section.inputs).values for section in sections]
            images = np.concatenate([f[s.rows(rows)] for f, s in zip(features, sections, strict=True)])
        return torch.from_numpy(images), torch.from_numpy(stack(sections, rows))

    def _keep(self, sections: Sequence[TrainingSection]) -> None:
        """Fill the bank with the gene embeddings of the weights that were kept."""
        if self.options.finetune:
            self._encoder = self._module.encoder
        embedding = []
        for section in sections:
            values = np.full((len(section.inputs), self.options.embedding_dim), np.nan, dtype=np.float32)
            values[section.used] = self.embed_genes(section.expression[section.used])
            embedding.append(values)
        self.fill_bank(sections, embedding)

    def _loss(self, module: nn.Module, batch: Batch, gather: Gather) -> Tensor:
        image, expression = batch
        if self.options.finetune and self.options.augment and module.training:
            image = augment(image, stain=self.options.stain_jitter)
        image_embedding, gene_embedding = module(image, expression)
        return contrastive_loss(
            gather(image_embedding),
            gather(gene_embedding),
            temperature=self.options.temperature,
            smoothed=self.options.objective == "smoothed",
        )

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of what was learned."""
        o = self.options
        n_features = self.encoder.n_features(self.patch.size) if o.finetune else self.n_features
        return {
            "image_head.projection.weight": (o.embedding_dim, n_features),
            "gene_head.projection.weight": (o.embedding_dim, "genes"),
        }

    def bank_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of the bank's tensors."""
        return super().bank_axes() | {"embedding": ("spots", self.options.embedding_dim)}

    def state(self) -> dict[str, Tensor]:
        """Return the weights of both sides, and of the encoder where it was trained."""
        weights = {name: value.cpu().contiguous() for name, value in self._module.state_dict().items()}
        return weights if self._correction is None else weights | self._correction.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights."""
        state, self._correction = split_state(state)
        n_features = state["image_head.projection.weight"].shape[1]
        self._module = self.towers(int(n_features), deepcopy(self.encoder) if self.options.finetune else None)
        self._module.load_state_dict(dict(state))
        if self._module.encoder is not None:
            self._encoder = self._module.encoder


def _check_pairs(sections: Sequence[TrainingSection], batch_size: int) -> None:
    """Raise ValueError where a batch would hold one spot: it has nothing to be contrasted with."""
    n_spots = sum(len(section.train) for section in sections)
    if min(n_spots, batch_size) < 2:
        msg = (
            "The contrastive loss compares the spots of a batch, so it needs at least two; there are "
            f"{n_spots} training spots, and batch_size={batch_size}."
        )
        raise ValueError(msg)


def _has_validation(sections: Sequence[TrainingSection]) -> bool:
    return sum(len(section.validation) for section in sections) > 1


def _in_batches(function: Callable[[Tensor], Tensor], module: nn.Module, values: np.ndarray) -> np.ndarray:
    device = torch_device()
    module.to(device).eval()
    return Batches("embedding", _ROWS_AT_ONCE)(function, values, device)
