"""Who is bank and who is query, and the ways in which a split can be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.eval_scenes import CLASSES, read_table, write_scenes, write_table
from swath.errors import ImageryError
from swath.evaluation.data.splits import TrainTestSplit, open_split


def names(split: TrainTestSplit) -> tuple[set[str], set[str]]:
    train, test = ({"/".join(Path(p).parts[-2:]) for p in part.paths} for part in (split.train, split.test))
    return train, test


def test_fold_column_decides(table: Path) -> None:
    split = open_split(table, sensor="rgb_aerial")
    assert (len(split.train.indices), len(split.test.indices)) == (48, 20)
    assert (split.train.name, split.test.name) == ("train", "val")
    assert split.origin == "column split: train and val"
    assert split.native_gsd == 0.5
    assert split.notes == []
    train, test = names(split)
    assert not train & test


def test_other_folds_and_columns_can_be_named(table: Path, tmp_path: Path) -> None:
    rows = [
        [str(table.parent / r[0]), r[1], r[2], "a" if i % 2 else "b"] for i, r in enumerate(read_table(table))
    ]
    other = write_table(tmp_path / "t.csv", rows, "file,class,gsd_m,part")
    split = open_split(other, sensor="rgb_aerial", split_column="part", train_split="b", test_split="a")
    assert (split.train.name, split.test.name) == ("b", "a")
    with pytest.raises(ImageryError, match=r"has no column 'parts'. Did you mean 'part'"):
        open_split(other, sensor="rgb_aerial", split_column="parts")
    with pytest.raises(ImageryError, match=r"values 'a', 'b', not 'train'.*--train-split and --test-split"):
        open_split(other, sensor="rgb_aerial", split_column="part")
    with pytest.raises(ImageryError, match="bank and queries are both 'a'"):
        open_split(other, sensor="rgb_aerial", split_column="part", train_split="a", test_split="a")


def test_label_column_is_found_or_named(table: Path, tmp_path: Path) -> None:
    rows = [[str(table.parent / r[0]), r[1], r[3]] for r in read_table(table)]
    for header, named in (("file,label,split", None), ("file,use,split", "use")):
        other = write_table(tmp_path / "t.csv", rows, header)
        split = open_split(other, sensor="rgb_aerial", gsd=0.5, label_column=named)
        assert split.train.dataset.classes == ["dark", "gray", "light", "spots"]
    with pytest.raises(ImageryError, match=r"no column 'usage'"):
        open_split(other, sensor="rgb_aerial", gsd=0.5, label_column="usage")


def test_folders_decide(table: Path, tmp_path: Path) -> None:
    for file, _, _, split, _ in read_table(table):
        target = tmp_path / "data" / split / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(table.parent / file, target)
    split = open_split(tmp_path / "data", sensor="rgb_aerial", gsd=0.5)
    assert (len(split.train.indices), len(split.test.indices)) == (48, 20)
    assert split.train.dataset.classes == split.test.dataset.classes
    assert split.hash == open_split(table, sensor="rgb_aerial").hash, "the same images on the same sides"
    (tmp_path / "data" / "val").rename(tmp_path / "data" / "held_out")
    with pytest.raises(
        ImageryError, match=r"none called val or test.*held_out, train. Name it with --test-split"
    ):
        open_split(tmp_path / "data", sensor="rgb_aerial", gsd=0.5)
    assert (
        open_split(tmp_path / "data", sensor="rgb_aerial", gsd=0.5, test_split="held_out").test.name
        == "held_out"
    )


def test_class_that_only_the_queries_have_is_refused(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table.parent, tmp_path / "train", ignore=shutil.ignore_patterns("spots", "*.csv"))
    shutil.copytree(table.parent, tmp_path / "val", ignore=shutil.ignore_patterns("*.csv"))
    with pytest.raises(ImageryError, match="spots"):
        open_split(tmp_path, sensor="rgb_aerial", gsd=0.5)


def test_split_by_seed_is_stratified_and_repeatable(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table.parent, tmp_path / "all", ignore=shutil.ignore_patterns("*.csv"))
    first, again, other = (
        open_split(tmp_path / "all", sensor="rgb_aerial", gsd=0.5, seed=seed) for seed in (0, 0, 1)
    )
    assert names(first) == names(again)
    assert first.hash == again.hash != other.hash
    assert np.bincount(first.test.labels).tolist() == [3, 3, 3, 3], "20% of 17"
    assert "no split of its own" in first.notes[0]


def test_groups_stay_together_in_a_split_made_here(table: Path, tmp_path: Path) -> None:
    rows = [[str(table.parent / r[0]), r[1], f"g{i // 3}"] for i, r in enumerate(read_table(table))]
    grouped = write_table(tmp_path / "t.csv", rows, "file,class,overlap_group")
    split = open_split(grouped, sensor="rgb_aerial", gsd=0.5)
    groups = np.array([row[2] for row in rows])
    position = {row[0]: i for i, row in enumerate(rows)}
    train, test = ({groups[position[str(Path(p))]] for p in part.paths} for part in (split.train, split.test))
    assert not train & test


def test_groups_on_both_sides_are_refused_or_noted(table: Path, tmp_path: Path) -> None:
    rows = [[str(table.parent / r[0]), r[1], r[2], r[3], ""] for r in read_table(table)]
    rows[0][4] = rows[14][4] = rows[15][4] = "place 7"  # 0 is in the bank, 14 and 15 are queries
    leaking = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(ImageryError, match=r"1 groups.*'place 7'.*scores of 2 queries.*--allow-overlap"):
        open_split(leaking, sensor="rgb_aerial")
    split = open_split(leaking, sensor="rgb_aerial", allow_overlap=True)
    assert split.notes[0].startswith("leak: ")
    other = write_table(tmp_path / "u.csv", rows, "file,class,gsd_m,split,place")
    with pytest.raises(ImageryError, match="place 7"):
        open_split(other, sensor="rgb_aerial", group_column="place")
    assert open_split(other, sensor="rgb_aerial").notes == []


def test_real_overlaps_do_not_straddle_the_folds_they_were_made_for(data_dir: Path) -> None:
    split = open_split(data_dir / "rsscn7" / "index.csv", sensor="rgb_aerial")
    assert (len(split.train.indices), len(split.test.indices)) == (1680, 420)
    assert split.notes == []
    assert split.native_gsd == pytest.approx(0.806, abs=0.01)


def test_files_left_out_are_told(table: Path, tmp_path: Path) -> None:
    rows = [[str(table.parent / r[0]), *r[1:]] for r in read_table(table)]
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    rows += [["damaged.png", "dark", "0.5", "train", ""], rows[0]]
    split = open_split(write_table(tmp_path / "t.csv", rows), sensor="rgb_aerial")
    assert "2 files left out" in split.notes[0]
    assert len(split.train.indices) == 48


def test_a_split_that_names_absent_files_is_refused(table: Path, tmp_path: Path) -> None:
    """A score without them would be that of another split, under the same name."""
    rows = [[str(table.parent / r[0]), *r[1:]] for r in read_table(table)]
    rows += [["nowhere.png", "dark", "0.5", "train", ""]]
    with pytest.raises(ImageryError, match=r"names 1 files that are not there, such as .*nowhere\.png"):
        open_split(write_table(tmp_path / "t.csv", rows), sensor="rgb_aerial")


def test_labels_are_needed(table: Path, tmp_path: Path) -> None:
    rows = [[str(table.parent / r[0]), r[3]] for r in read_table(table)]
    with pytest.raises(ImageryError, match="has no labels"):
        open_split(write_table(tmp_path / "t.csv", rows, "file,split"), sensor="rgb_aerial", gsd=0.5)


def test_missing_label_single_class_and_single_image_are_refused(table: Path, tmp_path: Path) -> None:
    rows = [[str(table.parent / r[0]), *r[1:]] for r in read_table(table)]
    blank = [[*r[:1], "" if i == 3 else r[1], *r[2:]] for i, r in enumerate(rows)]
    with pytest.raises(ImageryError, match=r"1 images have an empty class, such as .*dark/003\.png"):
        open_split(write_table(tmp_path / "blank.csv", blank), sensor="rgb_aerial")
    alone = [r for r in rows if r[1] == "dark"]
    with pytest.raises(ImageryError, match="all images of the bank are of class 'dark'"):
        open_split(write_table(tmp_path / "alone.csv", alone), sensor="rgb_aerial")
    lonely = [[r[0], r[1]] for r in [*alone, next(r for r in rows if r[1] == "light")]]
    with pytest.raises(ImageryError, match="class 'light' has a single image"):
        open_split(write_table(tmp_path / "lonely.csv", lonely, "file,class"), sensor="rgb_aerial", gsd=0.5)


def test_class_folder_without_images_is_refused(tmp_path: Path) -> None:
    """Scored without that class, the task would be an easier one under the same name."""
    write_scenes(tmp_path)
    (tmp_path / "index.csv").unlink()
    assert open_split(tmp_path, sensor="rgb_aerial", gsd=0.5).train.dataset.classes == list(CLASSES)
    (tmp_path / ".hidden").mkdir()
    assert len(open_split(tmp_path, sensor="rgb_aerial", gsd=0.5).test.indices) == 12
    (tmp_path / "water").mkdir()
    with pytest.raises(ImageryError, match=r"water: is a class folder without a single image"):
        open_split(tmp_path, sensor="rgb_aerial", gsd=0.5)


def test_fold_folder_with_an_empty_class_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_scenes(tmp_path / split)
    assert len(open_split(tmp_path, sensor="rgb_aerial", gsd=0.5).train.indices) == 68
    for split in ("train", "val"):
        (tmp_path / split / "water").mkdir()
    with pytest.raises(ImageryError, match=r"train.water: is a class folder without a single image"):
        open_split(tmp_path, sensor="rgb_aerial", gsd=0.5)


def test_class_missing_on_one_side_is_noted(table: Path, tmp_path: Path) -> None:
    rows = [[str(table.parent / r[0]), *r[1:]] for r in read_table(table)]
    uneven = [r for r in rows if (r[1], r[3]) not in (("dark", "train"), ("spots", "val"))]
    split = open_split(write_table(tmp_path / "t.csv", uneven), sensor="rgb_aerial")
    assert "no bank image of class dark" in split.notes[0]
    assert "no query of class spots" in split.notes[1]


def test_hash_depends_on_sides_and_labels_not_on_the_place(table: Path, tmp_path: Path) -> None:
    moved = write_scenes(tmp_path / "elsewhere")
    assert open_split(moved, sensor="rgb_aerial").hash == open_split(table, sensor="rgb_aerial").hash
    rows = [[r[0], r[1], r[2], "val" if i == 0 else r[3], ""] for i, r in enumerate(read_table(moved))]
    changed = open_split(write_table(moved, rows), sensor="rgb_aerial")
    assert changed.hash != open_split(table, sensor="rgb_aerial").hash
