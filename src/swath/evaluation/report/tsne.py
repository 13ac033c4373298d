"""Map embeddings to two dimensions by t-SNE (van der Maaten and Hinton 2008).

A t-SNE map shows which images are neighbors. The sizes of its clusters and the distances between them mean
nothing. Legend: N images, D feature dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE
from torch import Tensor

from swath.errors import SwathError

MAX_POINTS = 2000


def tsne(features: Tensor, *, perplexity: float = 30.0) -> tuple[Tensor, float]:
    """t-SNE of the unit vectors of [N, D], started from their principal components and a fixed seed.

    Args:
        features: 5 to 2,000 images.
        perplexity: About how many neighbors count; reduced to a third of the images.

    Returns:
        [N, 2] float64, and the remaining Kullback-Leibler divergence (0 is a perfect map).

    Raises:
        SwathError: Too few or too many images.
    """
    count = len(features)
    if not 5 <= count <= MAX_POINTS:
        raise SwathError(f"A t-SNE map needs 5 to {MAX_POINTS:,} images, not {count:,}.")
    unit = F.pad(F.normalize(features.double(), dim=1), (0, max(0, 2 - features.shape[1])))
    if torch.equal(unit, unit[:1].expand_as(unit)):  # scikit-learn would divide by their standard deviation
        return torch.zeros(count, 2, dtype=torch.float64), 0.0
    solver = TSNE(perplexity=min(perplexity, (count - 1) / 3), init="pca", random_state=0)
    points = torch.from_numpy(solver.fit_transform(unit.numpy())).double()
    return points, float(solver.kl_divergence_)
