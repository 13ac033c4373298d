"""BEN-14K by Swath's rule against the published subset: how many patches, and which.

Takes the official splits and the countries of BigEarthNet-MM v1 from the tables that the Python package
bigearthnet_common 2.8.0 ships, chooses by `swath.datasets.bigearthnet.patch_names.ben14k` (Serbia;
Sentinel-2 in June, July or August), and compares counts and the SHA-256 of the sorted, newline-joined names
with the published lists. Exits with status 1 where they differ. Nothing of the package is run.

    pip install --no-deps --target TABLES bigearthnet_common==2.8.0
    python benchmarks/ben14k_counts.py TABLES/bigearthnet_common
"""

from __future__ import annotations

import argparse
import bz2
import csv
import hashlib
import io
import sys
import time
from pathlib import Path

from swath.datasets.bigearthnet.patch_names import ben14k

# split -> (patches of the official split, patches of BEN-14K, first digits of the hash)
PUBLISHED = {
    "train": (269_695, 7_761, "6dffd6766828b990"),
    "val": (123_723, 3_508, "8853edea3970c605"),
    "test": (125_866, 3_563, "138c4fb185140c37"),
}


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(bz2.decompress(path.read_bytes()).decode())))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tables", type=Path, help="folder bigearthnet_common of the installed package")
    tables = parser.parse_args().tables
    began = time.process_time()
    countries = {row[1]: row[2] for row in rows(tables / "s1_s2_name_country_season.csv.bz2")[1:]}
    equal, total = True, 0
    print("split    split      BEN-14K  sha256            as published")
    for split, published in PUBLISHED.items():
        names = [row[0] for row in rows(tables / f"{split}.csv.bz2")]
        chosen = ben14k(names, [countries[name] for name in names])
        digest = hashlib.sha256("\n".join(chosen).encode()).hexdigest()[:16]
        same = (len(names), len(chosen), digest) == published
        equal, total = equal and same, total + len(chosen)
        print(f"{split:<7} {len(names):>7,}  {len(chosen):>9,}  {digest}  {'yes' if same else 'NO'}")
    print(f"{total:,} places in all; {time.process_time() - began:.1f} CPU-seconds")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
