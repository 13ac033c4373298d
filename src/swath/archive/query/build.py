"""One query from what the user gives: an image, chips, a place or an area."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swath.archive.query.query import Query, query_by_area, query_by_examples, query_by_place
from swath.archive.query.relevance_feedback import Method
from swath.errors import InvalidQuery

if TYPE_CHECKING:
    from swath.archive.ingest.encode import Embedder
    from swath.archive.table.store import ArchiveTable


def build_query(
    archive: ArchiveTable,
    *,
    image: str | os.PathLike[str] | None = None,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    place: tuple[float, float] | None = None,
    area: Any = None,
    model: Embedder | None = None,
    sensor: str | None = None,
    method: Method | None = None,
) -> Query:
    """One query from what is given of an image, chips, a place and an area; see `Archive.search`.

    Raises:
        ArchiveError: Not exactly one of them is given.
    """
    given = {"image": image is not None, "like": bool(like or unlike), "place": place is not None}
    given["area"] = area is not None
    present = [name for name, there in given.items() if there]
    if len(present) != 1:
        raise InvalidQuery(f"give exactly one of {', '.join(given)}, not {' and '.join(present) or 'none'}")
    if image is not None:
        from swath.archive.query.image_query import load_archive_model, query_by_image

        model = getattr(model, "encoder_model", model)  # a fine-tuned model embeds with its encoder
        return query_by_image(archive, image, model or load_archive_model(archive), sensor=sensor)
    if place is not None:
        return query_by_place(archive, *place)
    if area is not None:
        return query_by_area(archive, area)
    return query_by_examples(archive, like, unlike, method=method)
