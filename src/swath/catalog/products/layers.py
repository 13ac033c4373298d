"""Files that come with a product and are no bands of it: masks, classifications, previews, angles.

They are known by the end of their names, and only beside the images that they belong to: a folder that holds
nothing but such files is imagery.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

# Tokens at the end of a file's name, upper case.
LAYERS = {
    # pictures made for looking at
    "TCI", "VISUAL", "PREVIEW", "THUMBNAIL", "QUICKLOOK", "BROWSE", "OVERVIEW", "PVI",
    # usable data, classification, quality, saturation
    "UDM", "UDM2", "DN_UDM", "SCL", "FMASK", "QA60", "BQA", "QA_PIXEL", "QA_RADSAT", "QA_AEROSOL",
    "SR_QA_AEROSOL", "SR_CLOUD_QA", "ST_QA", "CLD", "CLDPRB", "CLM", "CLP", "SNW", "SNWPRB", "DATAMASK",
    "CLASSI", "MSK_CLASSI", "LS_MAP", "MASK",
    # atmosphere, sun and view, terrain
    "AOT", "WVP", "SAA", "SZA", "VAA", "VZA", "INC_MAP", "INC_MAP_EC", "SCATT_AREA", "DEM", "ST_CDIST",
    "ST_EMIS",
}  # fmt: skip


def layer_of(stem: str) -> tuple[str, str] | None:
    """(stem of the product, layer) of a file's name such as ``T33UUP_20210513_TCI_10m``; or None."""
    cleaned = re.sub(r"([_\-. ](\d+m|clip))+$", "", stem, flags=re.IGNORECASE)
    parts = re.split(r"([_\-. ])", cleaned)
    for first in range(0, len(parts), 2):  # the longest name first: "SR_QA_AEROSOL" before "AEROSOL"
        layer = re.sub(r"[\-. ]", "_", "".join(parts[first:])).upper()
        if layer in LAYERS:
            return "".join(parts[:first]).rstrip("_-. "), layer
    return None


def layers_beside_images(stems: Sequence[str], bands: Set[str]) -> dict[str, str]:
    """Of the files of one folder those that are layers of another file there: stem -> layer.

    Args:
        stems: Names without suffix.
        bands: Upper-case names of bands, which are no layers even if they are called like one.
    """
    found = {stem: layer for stem in stems if (layer := layer_of(stem)) is not None and layer[1] not in bands}
    images = [stem for stem in stems if stem not in found]
    return {
        stem: layer
        for stem, (product, layer) in found.items()
        if any(image.startswith(product) for image in images)
    }
