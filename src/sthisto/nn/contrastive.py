"""The loss that brings a spot's image and gene embeddings together."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sthisto._utils.validate import check_positive

__all__ = ["contrastive_loss"]


def contrastive_loss(
    image_embedding: torch.Tensor,
    gene_embedding: torch.Tensor,
    *,
    temperature: float = 1.0,
    smoothed: bool = True,
) -> torch.Tensor:
    """Contrast the two embeddings of a batch of spots, equation 3 of DANet.

    ``S = G I' / tau``, ``T = softmax((I I' + G G') / (2 tau))`` by rows, and the loss is the mean over spots of
    ``(CE(S, T) + CE(S', T')) / 2`` with ``CE(S, T) = -sum(T * log_softmax(S))``. T carries gradient. Over several
    processes the loss is that of the global batch: gather both embeddings with gradient first.

    Parameters
    ----------
    image_embedding, gene_embedding
        (n_spots, n_dimensions), row i of both being the same spot. Half precision is computed in float32.
    temperature
        tau.
    smoothed
        Whether T are the soft targets above; otherwise each spot's only target is itself, CLIP's objective.

    Returns
    -------
    The loss, a scalar.

    Raises
    ------
    ValueError
        If the embeddings are not two matrices of one shape with at least one row, or `temperature` is not positive.

    References
    ----------
    Wu et al., DANet, Briefings in Bioinformatics 2025. Xie et al., BLEEP, NeurIPS 2023,
    doi:10.48550/arXiv.2306.01859. Radford et al., CLIP, ICML 2021, doi:10.48550/arXiv.2103.00020.

    Examples
    --------
    >>> import torch
    >>> from sthisto.nn import contrastive_loss
    >>> embedding = torch.eye(4)
    >>> bool(contrastive_loss(embedding, embedding) < contrastive_loss(embedding, embedding.flip(0)))
    True
    """
    check_positive(temperature, name="temperature")
    if image_embedding.ndim != 2 or image_embedding.shape != gene_embedding.shape or not len(image_embedding):
        msg = (
            "The loss expects image and gene embeddings of one shape (n_spots, n_dimensions) with at least one spot, "
            f"found {tuple(image_embedding.shape)} and {tuple(gene_embedding.shape)}."
        )
        raise ValueError(msg)
    with torch.autocast(image_embedding.device.type, enabled=False):
        image, gene = _at_least_float32(image_embedding), _at_least_float32(gene_embedding)
        scores = gene @ image.T / temperature  # (n_spots, n_spots), rows are gene embeddings
        if not smoothed:
            itself = torch.arange(len(scores), device=scores.device)
            return (F.cross_entropy(scores, itself) + F.cross_entropy(scores.T, itself)) / 2
        targets = torch.softmax((image @ image.T + gene @ gene.T) / (2 * temperature), dim=1)
        log_likelihood = scores.log_softmax(dim=1) + scores.log_softmax(dim=0)
        return -(targets * log_likelihood).sum() / (2 * len(scores))


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()
