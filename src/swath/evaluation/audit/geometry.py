"""The shape of an embedding: how many directions it uses, how evenly, how many the data needs.

No figure here is a score. A collapsed space cannot be good, but an evenly filled one can be useless; so these
stand beside scores and explain them, and warn where a space is about to be a point or a line.

- `rankme` (Garrido et al. 2023) and `effective_rank` (Roy and Vetterli 2007): exp of the entropy of the
  shares of the singular values, of the features as they are and less their mean. A large mean vector makes
  the first small and leaves the second as it is.
- `participation_ratio`: (sum of variances)^2 / sum of squares; ruled by the few largest.
- `uniformity` and `alignment` (Wang and Isola 2020) on the unit sphere.
- `two_nn` (Facco et al. 2017): the dimension of the manifold that the points lie on, from the ratio of the
  distances to the second and first neighbor.

Legend: N images, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swath.errors import SwathError
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.extract import extract_features, supported_image_sizes
from swath.evaluation.features.protocol import FeatureExtractor, FeatureSet, Progress
from swath.evaluation.measures.embedding import (
    _centered,
    alignment,
    class_alignment,
    effective_rank,
    participation_ratio,
    two_nn,
    uniformity,
)
from swath.evaluation.protocols.setup import default_image_sizes, native_scale
from swath.files import write_json
from swath.training.monitoring.collapse import feature_std, rankme

_DEAD = 1e-3  # a dimension whose deviation is below this share of the median one is dead


@dataclass(slots=True)
class EmbeddingStats:
    """The shape of one feature extractor's features of some images at one side.

    Attributes:
        features: Featurizer name.
        image_size: Of the images, in pixels.
        images: Number N.
        dimensions: Number D.
        rankme: Directions used, as they are.
        effective_rank: Directions used, less the mean.
        participation: Directions that carry the variance.
        intrinsic: Dimension of the manifold (TwoNN); None where it is not available.
        uniformity: 0 for one point, about -4 for a full sphere.
        class_alignment: Distance within a class over distance at large; None without labels.
        scale_alignment: Squared distance to the same images at the next larger side; None at the largest.
        feature_std: Spread of directions: 1 for even, 0 for one direction.
        mean_cosine: Mean cosine of two images: near 1 where one mean vector rules.
        dead: Dimensions that do not vary.
        top_fraction: Share of the variance along the first principal axis.
    """

    features: str
    image_size: int
    images: int
    dimensions: int
    rankme: float
    effective_rank: float
    participation: float
    intrinsic: float | None
    uniformity: float
    class_alignment: float | None
    scale_alignment: float | None
    feature_std: float
    mean_cosine: float
    dead: int
    top_fraction: float

    @property
    def warning(self) -> str | None:
        """What looks like collapse, in a sentence."""
        max_count = min(self.images, self.dimensions)
        where = f"{self.features} at {self.image_size} px"
        if self.effective_rank < 2 or self.feature_std < 1e-3:
            return (
                f"{where}: the features are one point or one line (effective rank {self.effective_rank:.1f})"
            )
        if self.dead > self.dimensions // 10:
            return f"{where}: {self.dead} of {self.dimensions} dimensions do not vary at all"
        if self.top_fraction > 0.8:
            return f"{where}: one direction carries {100 * self.top_fraction:.0f}% of the variance"
        if max_count >= 64 and self.effective_rank < 0.04 * max_count:
            return (
                f"{where}: only about {self.effective_rank:.0f} of {max_count} possible directions are "
                "in use; "
                "compare with an earlier checkpoint"
            )
        return None


def embedding_stats(
    name: str, image_size: int, features: Tensor, labels: Tensor | None = None, larger: Tensor | None = None
) -> EmbeddingStats:
    """Geometry of features [N, D].

    Args:
        name: Of the feature extractor.
        image_size: Of the images, in pixels.
        features: At least three images.
        labels: [N] class indices, where known.
        larger: [N, D] of the same images at a larger side.

    Raises:
        SwathError: Fewer than three images, or features that are not finite.
    """
    if len(features) < 3:
        raise SwathError(f"{name}: the geometry of {len(features)} images says nothing; three are the least")
    if not bool(torch.isfinite(features).all()):
        raise SwathError(f"{name}: features hold NaN or infinity at {image_size} px")
    centered = _centered(features)
    deviation = centered.square().mean(dim=0).sqrt()
    variances = torch.linalg.svdvals(centered).square()
    unit = F.normalize(features.double(), dim=1)
    count = len(unit)
    pairs = (float(unit.sum(dim=0).square().sum()) - count) / (count * (count - 1))
    known = labels is not None and labels.ndim == 1
    return EmbeddingStats(
        name,
        image_size,
        count,
        features.shape[1],
        rankme(features),
        effective_rank(features),
        participation_ratio(features),
        two_nn(features),
        uniformity(features),
        class_alignment(features, labels) if known and labels is not None else None,
        None if larger is None else alignment(features, larger),
        feature_std(features),
        pairs,
        int((deviation <= _DEAD * deviation.median().clamp_min(1e-12)).sum()),
        float(variances[0] / variances.sum().clamp_min(1e-300)),
    )


@dataclass(slots=True)
class EmbeddingStatsReport:
    """Geometries of several feature extractors at several sides, and what they were measured on.

    Attributes:
        protocol: JSON-safe: everything that the figures depend on.
        rows: One a feature extractor and side.
        notes: Worth reading beside them; warnings of collapse first.
    """

    protocol: dict[str, Any]
    rows: list[EmbeddingStats]
    notes: list[str] = field(default_factory=list)

    def write(self, folder: str | Path, **about: Any) -> Path:
        """``geometry.json`` in `folder`; `about` is added to it."""
        target = Path(folder) / "embedding_stats.json"
        rows = [{k: _short(v) for k, v in asdict(row).items()} for row in self.rows]
        write_json(target, {**about, "settings": self.protocol, "geometry": rows, "notes": self.notes})
        return target


def evaluate_embedding_stats(
    extractors: Sequence[FeatureExtractor],
    part: EvalSubset,
    *,
    image_sizes: Sequence[int] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    extracted: FeatureSet | None = None,
    cache: FeatureCache | None = None,
) -> EmbeddingStatsReport:
    """Geometry of feature extractors on some images, a row a feature extractor and side.

    Args:
        extractors: Baselines are fitted to the same images.
        part: The images; several hundred at least for ranks that mean something.
        image_sizes: In pixels; default 12.5 to 100% of the native side.
        batch_size: Images at a time.
        progress: Called with (images done, images in all).
        extracted: Features of `part` at these sides, instead of extracting them here.
        cache: Where features are looked for, and kept.
    """
    if image_sizes is None:
        image_sizes = default_image_sizes(native_scale(part)[0], max(f.min_image_size for f in extractors))
    used, refused = supported_image_sizes(sorted(set(image_sizes)), extractors)
    if not used:
        raise SwathError("no image scale is left: " + "; ".join(refused))
    if extracted is None:
        extracted = extract_features(
            extractors, part, used, batch_size=batch_size, progress=progress, cache=cache,
            train=(part, used[-1]), fit=lambda extractor: extractor.fit(part, used[-1]),
        )  # fmt: skip
    rows = []
    for extractor in extractors:
        for i, image_size in enumerate(used):
            larger = extracted.features[extractor.name, used[i + 1]] if i + 1 < len(used) else None
            found = extracted.features[extractor.name, image_size]
            rows.append(embedding_stats(extractor.name, image_size, found, extracted.labels, larger))
    notes = [row.warning for row in rows if row.warning is not None]
    notes += [f"scale refused: {reason}" for reason in refused]
    count = len(extracted.indices)
    widest = max(row.dimensions for row in rows)
    if count < 5 * widest:
        notes.append(
            f"ranks are bounded by the {count:,} images: with fewer than five times the {widest} dimensions "
            "they compare features of these images only"
        )
    protocol = {
        "id": "swath.geometry/1",
        "name": "geometry",
        "resize": "area, whole image to side x side",
        "image_sizes": list(used),
        "feature_extractors": {f.name: f.settings for f in extractors},
        "images": {"name": part.name, "images": count},
        "sensor": part.dataset.sensor.name,
    }
    return EmbeddingStatsReport(protocol, rows, notes)


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
