"""Features are computed once: the cache finds them, is never stale, and goes on after a kill."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.eval_scenes import Fake, color, many, split_of
from swath.encoders import create_model
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.features.baselines import ImageStatistics, RawPixels
from swath.evaluation.features.cache import FeatureCache, default_cache_dir
from swath.evaluation.features.extract import extract_features, pooling_variants
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.evaluation.protocols.frozen import evaluate_knn
from swath.evaluation.protocols.setup import extract_split_features
from swath.models import Contract, Model


def model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    encoder = create_model("vit_micro_patch8", bands=3, embed_dim=24, depth=1, heads=2)
    return Model(encoder, Contract.of("rgb_aerial"), name="tiny")


class Counted(Fake):
    """Counts the images that it was shown; may be killed."""

    identity, learns = "counted/1", False

    def __init__(self, name: str = "counted", max_count: int = 10**9) -> None:
        super().__init__(name, color)
        self.shown, self.max_count = 0, max_count

    def __call__(self, batch: Any) -> torch.Tensor:
        if self.shown >= self.max_count:
            raise KeyboardInterrupt
        self.shown += len(batch["image"])
        return super().__call__(batch)


def test_second_time_nothing_is_computed(split: TrainTestSplit, tmp_path: Path) -> None:
    first, second = Counted(), Counted()
    before = extract_features([first], split.test, [16, 32], cache=FeatureCache(tmp_path))
    cache = FeatureCache(tmp_path)
    after = extract_features([second], split.test, [16, 32], cache=cache)
    assert (first.shown, second.shown) == (40, 0)
    assert (cache.reused, cache.computed) == (40, 0)
    for key, rows in before.features.items():
        assert torch.equal(rows, after.features[key])
    assert (before.indices == after.indices).all()
    assert torch.equal(before.labels, after.labels)
    assert len(list(tmp_path.rglob("*.npy"))) == len(list(tmp_path.rglob("*.json"))) == 2, "one file a side"


def test_killed_run_goes_on_and_gives_the_same(split: TrainTestSplit, tmp_path: Path) -> None:
    whole = extract_features([Counted()], split.train, [16, 32], batch_size=8)
    killed, again = Counted(max_count=2 * 24), Counted()
    with pytest.raises(KeyboardInterrupt):
        extract_features([killed], split.train, [16, 32], batch_size=8, cache=FeatureCache(tmp_path, chunk=8))
    found = extract_features(
        [again], split.train, [16, 32], batch_size=8, cache=FeatureCache(tmp_path, chunk=8)
    )
    assert again.shown == 2 * (48 - 24), "the rest, and only the rest"
    for key, rows in whole.features.items():
        assert torch.equal(rows, found.features[key])
    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and len(path.name) > 2], (
        "chunks are gone"
    )


def test_scores_from_the_cache_are_the_same(split: TrainTestSplit, tmp_path: Path) -> None:
    extractors = [ModelFeatureExtractor(model()), RawPixels(), ImageStatistics()]
    plain = evaluate_knn(extractors, split, image_sizes=[16, 32], k=3)
    for _ in range(2):
        cached = evaluate_knn(extractors, split, image_sizes=[16, 32], k=3, cache=FeatureCache(tmp_path))
        assert [s.value for s in cached.scores] == [s.value for s in plain.scores]
        assert cached.config_hash == plain.config_hash


def test_featurizer_is_not_even_fitted_when_all_is_there(split: TrainTestSplit, tmp_path: Path) -> None:
    class Learner(Counted):
        learns = True

    extract_split_features([Learner()], split, [16], cache=FeatureCache(tmp_path))
    again = Learner()
    extract_split_features([again], split, [16], cache=FeatureCache(tmp_path))
    assert (again.shown, again.fitted_on) == (0, [])


@pytest.mark.parametrize("change", ["weights", "pooling", "file", "gsd", "image_size", "train"])
def test_whatever_changes_is_computed_anew(table: Path, tmp_path: Path, change: str) -> None:
    shutil.copytree(table.parent, tmp_path / "data")
    split = split_of(tmp_path / "data" / "index.csv")
    own = model()
    learner = change == "train"

    def run(extractor: Any, split: TrainTestSplit, image_size: int = 16) -> FeatureCache:
        cache = FeatureCache(tmp_path / "cache")
        extract_split_features([extractor], split, [image_size], cache=cache)
        return cache

    run(RawPixels() if learner else ModelFeatureExtractor(own), split)
    extractor: Any = RawPixels() if learner else ModelFeatureExtractor(own)
    image_size = 16
    if change == "weights":
        with torch.no_grad():
            own.encoder.norm.bias += 0.1
    elif change == "pooling":
        extractor = ModelFeatureExtractor(own, pooling="mean_std")
    elif change == "file":
        victim = split.test.paths[0]
        os.utime(victim, ns=(1, 1))
    elif change == "gsd":
        split = split_of(tmp_path / "data" / "index.csv", gsd=3.0)
    elif change == "image_size":
        image_size = 24
    else:
        split.train = type(split.train)(split.train.dataset, split.train.indices[1:], "train")
    found = run(extractor, split, image_size)
    assert found.computed >= 20, change
    assert found.reused == (48 if change == "file" else 0), change


def test_other_name_of_the_same_thing_is_found(split: TrainTestSplit, tmp_path: Path) -> None:
    extract_features([ModelFeatureExtractor(model(), "a")], split.test, [16], cache=FeatureCache(tmp_path))
    cache = FeatureCache(tmp_path)
    extract_features([ModelFeatureExtractor(model(), "b")], split.test, [16], cache=cache)
    assert cache.computed == 0


def test_several_read_outs_share_an_encoding_and_are_kept_apart(
    split: TrainTestSplit, tmp_path: Path
) -> None:
    both = pooling_variants(model(), ["mean", "mean_std"])
    extract_features(both, split.test, [16], cache=FeatureCache(tmp_path))
    cache = FeatureCache(tmp_path)
    found = extract_features(pooling_variants(model(), ["mean_std", "cls"]), split.test, [16], cache=cache)
    assert (cache.reused, cache.computed) == (20, 20)
    assert found.features["tiny, mean_std", 16].shape == (20, 48)


def test_images_of_no_file_are_known_by_their_pixels(tmp_path: Path) -> None:
    honest = many(10, 6)
    extract_features([Counted()], honest.test, [8], cache=FeatureCache(tmp_path))
    again = Counted()
    extract_features([again], many(10, 6).test, [8], cache=FeatureCache(tmp_path))
    extract_features([again], many(11, 6).test, [8], cache=FeatureCache(tmp_path))
    assert again.shown == 6, "the second time other images"


def test_unreadable_image_is_looked_at_again(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table.parent, tmp_path / "data")
    split = split_of(tmp_path / "data" / "index.csv")
    victim = Path(split.test.paths[3])
    sound, times = victim.read_bytes(), victim.stat()
    victim.write_bytes(sound[:200])
    os.utime(victim, ns=(times.st_mtime_ns, times.st_mtime_ns))
    first = Counted()
    found = extract_features([first], split.test, [16], cache=FeatureCache(tmp_path / "c", chunk=5))
    assert (len(found.labels), first.shown) == (19, 19)
    again = Counted()
    found = extract_features([again], split.test, [16], cache=FeatureCache(tmp_path / "c", chunk=5))
    assert (len(found.labels), again.shown) == (19, 4), "its chunk only"
    assert [path for path, _ in found.problems] == [str(victim)]
    assert split.test.indices[3] not in found.indices


def test_file_that_was_cut_short_is_computed_again(split: TrainTestSplit, tmp_path: Path) -> None:
    before = extract_features([Counted()], split.test, [16], cache=FeatureCache(tmp_path))
    (file,) = tmp_path.rglob("*.npy")
    file.write_bytes(file.read_bytes()[:300])
    again = Counted()
    found = extract_features([again], split.test, [16], cache=FeatureCache(tmp_path))
    assert again.shown == 20
    assert torch.equal(found.features["counted", 16], before.features["counted", 16])


def test_cached_features_are_mapped_and_writing_to_them_changes_no_file(
    split: TrainTestSplit, tmp_path: Path
) -> None:
    extract_features([Counted()], split.test, [16], cache=FeatureCache(tmp_path))
    found = extract_features([Counted()], split.test, [16], cache=FeatureCache(tmp_path))
    found.features["counted", 16].zero_()
    afresh = extract_features([Counted()], split.test, [16], cache=FeatureCache(tmp_path))
    assert afresh.features["counted", 16].abs().sum() > 0


def test_featurizer_without_identity_is_never_cached(split: TrainTestSplit, tmp_path: Path) -> None:
    extract_features([Fake("c", color)], split.test, [16], cache=FeatureCache(tmp_path))
    assert not list(tmp_path.iterdir())


def test_default_folder_follows_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "swath" / "features"
    assert FeatureCache().folder == default_cache_dir()
