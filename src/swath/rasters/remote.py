"""Imagery that is not on a disk: Cloud-Optimized GeoTIFFs on the web and in object stores, read by ranges.

GDAL's network file systems fetch the blocks that a window touches. Only its GeoTIFF driver may look at such a
file, so that a page of HTML or a virtual raster behind a URL is refused like any other foreign file. Object
stores take their credentials from where GDAL looks (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` or
``AWS_S3_ENDPOINT``, ``AWS_NO_SIGN_REQUEST=YES``, ``GOOGLE_APPLICATION_CREDENTIALS``, ...).

What a catalog or a STAC item names is fetched only where the user has said that it may be (``remote=True``,
``--remote``): such a file comes from outside, and could name any address that this machine can reach.
"""

from __future__ import annotations

import os
import re
from functools import cache

from swath.errors import ImageryError

_FILE_SYSTEMS = {
    "https": "/vsicurl/https://",
    "http": "/vsicurl/http://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, and no name on this machine's disks."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(path)) is not None


def to_vsi_path(url: str) -> str:
    """What GDAL calls a URL.

    Raises:
        ImageryError: A scheme that is not read, or a URL with spaces or control characters.
    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in _FILE_SYSTEMS:
        known = ", ".join(f"{name}://" for name in _FILE_SYSTEMS)
        raise ImageryError(f"{url}: imagery is read from {known} and from local paths")
    if not rest or re.search(r"[\s\x00-\x1f]", url):
        raise ImageryError(f"{url!r}: is no URL of a file (write spaces as %20)")
    return _FILE_SYSTEMS[scheme.lower()] + rest


@cache
def configure_http_retries() -> None:
    """Let GDAL ask by GET, try again what fails in passing, and give up what hangs; for the whole process."""
    from rasterio.env import get_gdal_config, set_gdal_config

    for name, value in (
        ("CPL_VSIL_CURL_USE_HEAD", "NO"),  # signed URLs are often good for GET alone
        ("GDAL_HTTP_MAX_RETRY", "3"),
        ("GDAL_HTTP_RETRY_DELAY", "1"),
        ("GDAL_HTTP_CONNECTTIMEOUT", "20"),
        ("GDAL_HTTP_LOW_SPEED_TIME", "60"),
        ("GDAL_HTTP_LOW_SPEED_LIMIT", "100"),
    ):
        if name not in os.environ and get_gdal_config(name) is None:
            set_gdal_config(name, value)
