"""Why a scene found no partner."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Why:
    """The best that is known of why a scene is in no pair."""

    fraction: float = 0.0  # largest overlap
    gap: float | None = None  # least days to one that overlaps enough
    no_time: bool = False
    small: bool = False  # the common ground is smaller than a chip
    taken: bool = False  # another scene is nearer in time
