"""A method in a package of its own: a linear layer on the features of a frozen encoder, trained in epochs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sthisto.models import (
    BatchOptions,
    EpochOptions,
    ExpressionModel,
    OptimizerOptions,
    Prediction,
    Training,
    extract,
    seeded,
    train,
)


@dataclass(frozen=True)
class LinearOptions(OptimizerOptions, BatchOptions, EpochOptions):
    """Options of `Linear`.

    Parameters
    ----------
    max_epochs
        Largest number of epochs.
    patience
        Epochs without a lower validation loss after which training stops.
    batch_size
        Spots in a batch, over all processes.
    learning_rate, weight_decay
        AdamW's step size and decoupled weight decay.
    dropout
        Share of features that are set to zero in training.
    """

    dropout: float = 0.1


class Linear(ExpressionModel):
    """One linear output per gene, with dropout of the features."""

    method = "linear"
    label = "Linear"
    Options = LinearOptions
    has_epochs = True
    has_embedding = True

    def fit_sections(self, sections, seed):
        rows = [(section, self.embed(section.inputs)) for section in sections]
        data = self.tensors([(s.expression, f, s.train) for s, f in rows])
        validation = self.tensors([(s.expression, f, s.validation) for s, f in rows])
        with seeded(seed):
            self.network = self.new_network(data[0].shape[1])
            self.history = train(
                self.network,
                data,
                loss=squared_error,
                validation=validation if len(validation[0]) else None,
                groups=np.repeat(np.arange(len(sections)), [len(section.train) for section in sections]),
                training=Training.of(self.options, seed=seed),
                description="Fitting linear",
            )

    def predict_section(self, section, exclude):
        features = extract(section, self.encoder)
        self.network.cpu().eval()
        with torch.inference_mode():
            expression = self.network(torch.from_numpy(features.values)).numpy()
        return Prediction(expression=expression, seen=self.seen(features.fingerprint))

    def embed(self, section):
        return extract(section, self.encoder).values

    def state(self):
        return {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}

    def load_state(self, state):
        self.network = self.new_network(state["1.weight"].shape[1])
        self.network.load_state_dict(dict(state))

    def new_network(self, n_features):
        return nn.Sequential(nn.Dropout(self.options.dropout), nn.Linear(n_features, len(self.genes)))

    @staticmethod
    def tensors(parts):
        features = np.concatenate([values[rows] for _, values, rows in parts])
        expression = np.concatenate([values[rows] for values, _, rows in parts])
        return torch.from_numpy(features), torch.from_numpy(expression)


def squared_error(module, batch, gather):
    features, expression = batch
    return nn.functional.mse_loss(gather(module(features)), gather(expression))
