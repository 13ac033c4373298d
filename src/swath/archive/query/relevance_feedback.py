"""What several examples mean together: one direction to search along.

Both ways give a vector [D] at length 1, so that an index finds the chips with the largest cosine, and the
score keeps its meaning.

- ``rocchio``: the mean of the examples liked, less half the mean of those not liked (Rocchio, The SMART
  Retrieval System, 1971).
- ``blend``: Rocchio's direction and a learned one in equal parts: the strongly shrunk least-squares direction
  that tells the examples liked from those not liked and from a random sample of the archive, which stands in
  as weak negatives. With one example this is an exemplar-LDA (Hariharan, Malik and Ramanan, ECCV 2012): what
  is common in the archive counts for little. A learned direction finds more where several examples are
  liked, and less where some are not liked; the two together are as good as the better of them, or nearly.

Which is better on real labeled images is measured in benchmarks/RESULTS.md ("Search by several examples").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from swath.archive.index.vectors import Floats
from swath.errors import InvalidQuery

Method = Literal["rocchio", "blend"]
DEFAULT: Method = "blend"  # of several chips of an archive
METHODS: tuple[str, ...] = get_args(Method)

_AWAY = 0.5  # of the mean of what is not liked, in Rocchio
_UNLIKED = 0.3  # of the negatives' weight goes to examples not liked, the rest to the archive's sample
_SHRINKAGE = 3.0  # of the mean variance, added to each: few examples say little about most directions


@dataclass(frozen=True, slots=True)
class FeedbackExample:
    """One embedding and the sensor it is of.

    Attributes:
        vector: [D] as the model gave it.
        sensor: Name; None where it is not known, which does for an archive that is not centered.
    """

    vector: Floats
    sensor: str | None = None


@dataclass(frozen=True, slots=True)
class RelevanceFeedback:
    """Several embeddings that say together what is searched for.

    Attributes:
        like: More like these, at least one.
        unlike: Less like those.
        method: How they become one direction.
    """

    like: Sequence[FeedbackExample]
    unlike: Sequence[FeedbackExample] = field(default=())
    method: Method = "rocchio"

    def __post_init__(self) -> None:
        if not self.like:
            raise InvalidQuery("give at least one example to search for; examples to avoid are not enough")
        if self.method not in METHODS:
            raise InvalidQuery(f"examples are combined by {', '.join(METHODS)}, not by {self.method!r}")


def query_vector(like: Floats, unlike: Floats, sample: Floats | None, method: Method) -> Floats:
    """One direction [D] at length 1 from examples at length 1.

    Args:
        like: [P, D], P >= 1.
        unlike: [Q, D], Q >= 0.
        sample: [R, D] random vectors of the archive; not needed by ``rocchio``.
        method: See the head of this file.

    Raises:
        ArchiveError: The examples cancel each other, so that no direction is left.
    """
    if method == "rocchio":
        found = _towards(like, unlike)
    else:
        assert sample is not None
        # In equal parts as they order the archive: each in units of the spread of its own scores.
        found = np.zeros(like.shape[1])
        for part in (_towards(like, unlike), _separating(like, unlike, sample)):
            part = part / max(float(np.linalg.norm(part)), 1e-12)
            found += part / max(float((sample @ part).std()), 1e-3)
    length = float(np.linalg.norm(found))
    if not np.isfinite(length) or length < 1e-6:
        raise InvalidQuery(
            "the examples to search for and those to avoid cancel each other; drop those that are in both"
        )
    return np.asarray(found / length, dtype=np.float32)


def _towards(like: Floats, unlike: Floats) -> NDArray[np.float64]:
    """Rocchio's direction."""
    found: NDArray[np.float64] = like.mean(0, dtype=np.float64)
    return found - _AWAY * unlike.mean(0, dtype=np.float64) if len(unlike) else found


def _separating(like: Floats, unlike: Floats, sample: Floats) -> NDArray[np.float64]:
    """The least-squares direction that separates; both sides weigh the same, whatever their numbers."""
    examples = np.concatenate([like, unlike, sample]).astype(np.float64)
    target = np.concatenate([np.ones(len(like)), -np.ones(len(unlike) + len(sample))])
    known = _UNLIKED if len(unlike) else 0.0
    weight = np.concatenate(
        [
            np.full(len(like), 0.5 / len(like)),
            np.full(len(unlike), 0.5 * known / max(1, len(unlike))),
            np.full(len(sample), 0.5 * (1 - known) / max(1, len(sample))),
        ]
    )
    center = weight @ examples
    moved = examples - center
    spread = float(sample.astype(np.float64).var(0).mean()) if len(sample) > 1 else 1.0
    penalty = _SHRINKAGE * max(spread, 1e-12) * np.eye(examples.shape[1])
    curvature = (moved * weight[:, None]).T @ moved + penalty
    found: NDArray[np.float64] = np.linalg.solve(curvature, (weight * target) @ moved)
    return found
