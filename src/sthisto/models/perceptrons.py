"""Several small perceptrons trained at once, each from a seed of its own, and the mean of what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

_TINY: Final = 1e-12


@dataclass(frozen=True)
class PerceptronSettings:
    """How perceptrons are made and trained.

    Attributes
    ----------
    n_models
        Networks for each target, from consecutive seeds.
    hidden, input_dropout, dropout
        Units of the hidden layer, and dropout before and after it.
    max_epochs, averaged_epochs
        Epochs, and how many of the last ones the weights are averaged over.
    batch_size, learning_rate, weight_decay
        Spots per batch, and AdamW's learning rate and weight decay.
    """

    n_models: int = 5
    hidden: int = 128
    input_dropout: float = 0.2
    dropout: float = 0.5
    max_epochs: int = 30
    averaged_epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01


class Perceptrons(nn.Module):
    """Networks side by side: (n_networks, batch, n_features) to (n_networks, batch, n_outputs).

    Each is dropout, linear, GELU, dropout, linear.
    """

    def __init__(self, n_networks: int, n_features: int, n_outputs: int, settings: PerceptronSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden = settings.hidden
        self.weight1 = nn.Parameter(torch.zeros(n_networks, n_features, hidden))
        self.bias1 = nn.Parameter(torch.zeros(n_networks, 1, hidden))
        self.weight2 = nn.Parameter(torch.zeros(n_networks, hidden, n_outputs))
        self.bias2 = nn.Parameter(torch.zeros(n_networks, 1, n_outputs))

    def draw(self, generators: Sequence[torch.Generator]) -> None:
        """Draw the weights of each network, as `torch.nn.Linear` does, from its own generator."""
        with torch.no_grad():
            for weight, bias in ((self.weight1, self.bias1), (self.weight2, self.bias2)):
                bound = weight.shape[1] ** -0.5
                for i, generator in enumerate(generators):
                    weight[i].uniform_(-bound, bound, generator=generator)
                    bias[i].uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Map features; with a generator, under dropout drawn from it."""
        if generator is not None:
            x = _dropped(x, self.settings.input_dropout, generator)
        hidden = nn.functional.gelu(torch.baddbmm(self.bias1, x, self.weight1))
        if generator is not None:
            hidden = _dropped(hidden, self.settings.dropout, generator)
        return torch.baddbmm(self.bias2, hidden, self.weight2)


def fit_perceptrons(
    x: np.ndarray, targets: Sequence[np.ndarray], settings: PerceptronSettings, *, seed: int
) -> tuple[Perceptrons, list[float]]:
    """Train `n_models` networks for each target, and average their weights over the last epochs.

    Parameters
    ----------
    x
        (n, n_features) standardized features.
    targets
        (n, n_outputs) each; brought to one spread for the training.
    seed
        Network i of each target is that of seed + i.

    Returns
    -------
    The networks, target by target, and what the mean training loss of each epoch was.
    """
    n = len(x)
    generators = [torch.Generator().manual_seed(seed + i) for _ in targets for i in range(settings.n_models)]
    networks = Perceptrons(len(generators), x.shape[1], targets[0].shape[1], settings)
    networks.draw(generators)
    features = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    scaled = [target / max(float(np.sqrt(np.square(target).mean())), _TINY) for target in targets]
    answers = torch.from_numpy(np.stack(scaled).astype(np.float32)).repeat_interleave(settings.n_models, dim=0)
    optimizer = torch.optim.AdamW(networks.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    dropout = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(generators))[:, None]
    averaged: dict[str, Tensor] = {}
    n_averaged = min(settings.averaged_epochs, settings.max_epochs)
    losses = []
    for epoch in range(settings.max_epochs):
        order = torch.stack([torch.randperm(n, generator=generator) for generator in generators])
        total = 0.0
        for batch in order.split(ceil(n / ceil(n / settings.batch_size)), dim=1):
            optimizer.zero_grad()
            error = torch.square(networks(features[batch], dropout) - answers[rows, batch]).mean(dim=(1, 2))
            error.sum().backward()
            optimizer.step()
            total += float(error.detach().mean()) * batch.shape[1]
        losses.append(total / n)
        if epoch >= settings.max_epochs - n_averaged:
            for name, value in networks.state_dict().items():
                averaged[name] = averaged.get(name, 0) + value / n_averaged
    networks.load_state_dict(averaged)
    return networks, losses


def predict_perceptrons(networks: Perceptrons, x: np.ndarray, n_targets: int) -> list[np.ndarray]:
    """Return the mean over the networks of each target, (n, n_outputs) float64 each."""
    features = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    parts = []
    with torch.inference_mode():
        n_networks = networks.weight1.shape[0]
        parts += [networks(rows.expand(n_networks, -1, -1)).numpy() for rows in features.split(4096)]
    scores = np.concatenate(parts, axis=1).astype(np.float64)
    return [part.mean(axis=0) for part in np.split(scores, n_targets)]


def perceptron_state(networks: Perceptrons) -> Mapping[str, Tensor]:
    """Return the weights."""
    return {name: value.detach().contiguous() for name, value in networks.state_dict().items()}


def load_perceptrons(state: Mapping[str, Tensor], settings: PerceptronSettings) -> Perceptrons:
    """Return networks with weights of `perceptron_state`."""
    n_networks, n_features, _ = state["weight1"].shape
    networks = Perceptrons(int(n_networks), int(n_features), int(state["weight2"].shape[2]), settings)
    networks.load_state_dict(dict(state))
    return networks


def _dropped(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    if not share:
        return x
    kept = torch.rand(x.shape, generator=generator) >= share
    return x * kept / (1 - share)
