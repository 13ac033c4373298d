"""Cut the sample imagery that Swath ships from what two packages carry (see src/swath/samples/PROVENANCE.md).

Only maintainers run this, and rarely; it makes the files of `src/swath/samples` again, byte for byte with the
versions of GDAL and Pillow in constraints.txt. Get the packages first, outside the repository:

    pip download --no-deps --dest DOWNLOADS deepforest==2.1.0 spyndex==0.12.0
    python examples/cut_samples.py DOWNLOADS
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_origin

SAMPLES = Path(__file__).resolve().parent.parent / "src" / "swath" / "samples"
# A flat grid in metres somewhere: it gives the pixels their true size and claims no place.
SOMEWHERE = 'LOCAL_CS["10 m grid, place not known",UNIT["metre",1]]'
NEON = "NEON airborne observation platform camera mosaic, %s, 0.1 m"
APPROXIMATE = (
    "approximate: the UTM zone, orientation and pixel size are true; the crop's place inside its 1 km NEON "
    "tile is not known, it is put into the tile's south-west corner"
)


def write_cog(
    path: Path,
    image: np.ndarray,
    *,
    crs: str,
    transform: rasterio.Affine,
    tags: dict[str, str],
    descriptions: list[str],
    **creation: object,
) -> None:
    """A cloud-optimized GeoTIFF with overviews; `image` is [bands, rows, columns]."""
    bands, height, width = image.shape
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", width=width, height=height, count=bands, dtype=image.dtype,
                         crs=crs, transform=transform) as scene:  # fmt: skip
            scene.write(image)
            scene.descriptions = tuple(descriptions)
            scene.update_tags(**tags)
        with memory.open() as scene:
            copy_raster(scene, path, driver="COG", BLOCKSIZE=256, **creation)


def picture(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(archive.read(f"deepforest/data/{name}"))).convert("RGB"))


def boxes(archive: zipfile.ZipFile, name: str) -> list[list[int]]:
    """Tree boxes of a Pascal VOC file as [xmin, ymin, xmax, ymax] in pixels."""
    text = archive.read(f"deepforest/data/{name}").decode()
    corners = [
        [int(float(v)) for v in re.findall(rf"<{key}>([^<]+)<", text)]
        for key in ("xmin", "ymin", "xmax", "ymax")
    ]
    return [list(box) for box in zip(*corners, strict=True)]


def cut_neon(archive: zipfile.ZipFile) -> None:
    trees: list[list[object]] = []
    for target, source in {
        "aerial/yellowstone_meadow.tif": "2019_YELL_2_528000_4978000_image_crop2",
        "aerial/yellowstone_road.tif": "2019_YELL_2_541000_4977000_image_crop",
    }.items():
        image = picture(archive, f"{source}.png")
        east, north = (float(number) for number in re.findall(r"_(\d{6,7})", source))
        write_cog(
            SAMPLES / target, image.transpose(2, 0, 1), crs="EPSG:32612",
            transform=from_origin(east, north + 0.1 * image.shape[0], 0.1, 0.1),
            tags={"SOURCE": NEON % "site YELL, 2019", "GEOREFERENCE": APPROXIMATE},
            descriptions=["red", "green", "blue"], COMPRESS="JPEG", QUALITY=85, OVERVIEW_QUALITY=85,
        )  # fmt: skip
        trees += [[Path(target).name, *box] for box in boxes(archive, f"{source}.xml")]

    with MemoryFile(archive.read("deepforest/data/OSBS_029.tif")) as memory, memory.open() as scene:
        # The original tags 255 as nodata although saturated pixels are real: the tag is left out here.
        write_cog(
            SAMPLES / "aerial/ordway_swisher.tif", scene.read(), crs=scene.crs.to_string(),
            transform=scene.transform, tags={"SOURCE": NEON % "site OSBS"},
            descriptions=["red", "green", "blue"], COMPRESS="JPEG", QUALITY=90, OVERVIEW_QUALITY=90,
        )  # fmt: skip
    trees += [["ordway_swisher.tif", *box] for box in boxes(archive, "OSBS_029.xml")]

    for number in ("031", "061"):
        Image.fromarray(picture(archive, f"SOAP_{number}.png")).save(
            SAMPLES / f"aerial_without_gsd/soaproot_saddle_{number}.webp", quality=88, method=6
        )

    with (SAMPLES / "tree_boxes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "xmin", "ymin", "xmax", "ymax"])
        writer.writerows(trees)


def cut_sentinel2(archive: zipfile.ZipFile) -> None:
    image = np.asarray(json.loads(archive.read("spyndex/data/S2_10m.json")), dtype=np.uint16)
    profile = {"driver": "GTiff", "width": 300, "height": 300, "count": 4, "dtype": "uint16",
               "compress": "deflate", "predictor": 2, "zlevel": 9, "tiled": True, "blockxsize": 128,
               "blockysize": 128, "crs": SOMEWHERE,
               "transform": from_origin(0, 3000, 10, 10)}  # fmt: skip
    with rasterio.open(SAMPLES / "sentinel2/sentinel2_10m.tif", "w", **profile) as scene:
        scene.write(image)
        scene.descriptions = ("B02", "B03", "B04", "B08")
        scene.update_tags(SOURCE="modified Copernicus Sentinel-2 data, 10 m bands, reflectance x 10,000",
            GEOREFERENCE="local: place and date are not known; the pixels are 10 m")  # fmt: skip


def main() -> None:
    downloads = Path(sys.argv[1])
    for folder in ("aerial", "aerial_without_gsd", "sentinel2"):
        (SAMPLES / folder).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(next(downloads.glob("deepforest-2.1.0-*.whl"))) as archive:
        cut_neon(archive)
    with zipfile.ZipFile(next(downloads.glob("spyndex-0.12.0-*.whl"))) as archive:
        cut_sentinel2(archive)
    for path in sorted(SAMPLES.rglob("*.*")):
        print(f"{path.stat().st_size / 1e6:8.3f} MB  {path.relative_to(SAMPLES)}")


if __name__ == "__main__":
    main()
