"""The report of the demo: one HTML file with embedded images, which loads nothing."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.errors import SwathError
from swath.reporting.html import figure, jpeg, plot_bytes, table, write_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from swath.demo.results import DemoResults


def write_demo_report(results: DemoResults) -> Path:
    """Write `report.html` into the output folder, atomically."""
    parts = [
        _head(results),
        _imagery(results),
        _training(results),
        _scores(results),
        _searches(results),
        _contract(results),
        _next(),
    ]
    return write_html(results.out / "report.html", "Swath demo", [*parts, _foot(results)])


def demo_summary(results: DemoResults) -> list[str]:
    """Sentences on whether training helped and whether the model is better than every baseline."""
    from swath.evaluation.report.tables import summary_sentence

    evaluation = results.evaluation
    if evaluation is None:
        raise SwathError("The demo has no evaluation results to summarize.")
    ours = evaluation.scores[0].features
    kind = max(
        (row for row in evaluation.rows if row[0] == ours), key=lambda r: evaluation.mean(*r).accuracy
    )[1]
    gap = evaluation.compare(ours, "random init", kind)
    if gap.low > 0:
        learned = (
            f"Training helped: {100 * gap.difference:.1f} points above the same encoder randomly initialized"
        )
    elif gap.high < 0:
        learned = (
            f"Training hurt: {-100 * gap.difference:.1f} points below the same encoder randomly initialized"
        )
    else:
        learned = f"Training made no clear difference: {100 * gap.difference:+.1f} points to a fresh encoder"
    learned += f" (95%: {100 * gap.low:+.1f} to {100 * gap.high:+.1f})."
    return [learned, summary_sentence(evaluation)]


# ------------------------------------------------------------------------------------------------ sections


def _head(results: DemoResults) -> str:
    last = [line for line in results.metrics if "images" in line][-1]
    numbers = (
        (f"{results.seconds['all'] / 60:.1f} min", "from imagery to results"),
        (f"{last['images']:,}", "views in pretraining"),
        (results.about["parameters"], "parameters"),
        (results.about["GSD range"], "ground sample distance"),
        (f"{results.embedded:,}", "chips in the archive"),
    )
    items = "".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for value, name in numbers)
    summary = "".join(f"<p>{escape(sentence)}</p>" for sentence in demo_summary(results) if sentence)
    return (
        "<h1>Swath: from imagery to search results</h1>"
        "<p>A small Scale-MAE was pretrained without labels on real aerial scenes and on simulated "
        "ones, compared "
        "with simple baselines, and used to search an archive. Everything here was computed by the run "
        f'that wrote it.</p><div class="finding">{summary}</div><ul class="numbers">{items}</ul>'
        '<p class="quiet">Real imagery: NEON aerial scenes at 0.1 m and a Sentinel-2 scene (provenance '
        "ships with the "
        "package). Scores are measured on <b>simulated</b> scenes, because labels at many scales are "
        "rare in what may "
        "be shipped; they show that the software works and say nothing about real imagery.</p>"
    )


def _imagery(results: DemoResults) -> str:
    return (
        "<h2>Imagery</h2><p>Each file is opened with the driver that matches its first bytes. The "
        "GSD is measured "
        "on the ground, whatever the coordinate system.</p>"
        + table(list(results.catalog[0]), [list(row.values()) for row in results.catalog])
        + figure(
            jpeg(_thumbnails()),
            "The real scenes: two in Yellowstone, one in Florida, and Sentinel-2 in color.",
        )
        + figure(
            jpeg(_classes()),
            "The simulated classes, one per column. The layout in metres defines the class; colors, "
            "light, haze "
            "and GSD (0.5 to 2 m) are sampled independently of it.",
        )
    )


def _training(results: DemoResults) -> str:
    text = (
        "<h2>Pretraining</h2><p>Three quarters of a source image's patches are hidden. From the others, "
        "and from the "
        "positions in metres, the model reconstructs the low frequencies at the source's size "
        "and the "
        "high ones at twice that size. No label is used.</p>"
    )
    images = sorted((results.out / "run" / "images").glob("*.png"))
    if images:
        caption = "Reconstructions at the end of training, one row per sample."
        text += figure(images[-1].read_bytes(), caption, "png", css_class="pixels")
    return text + figure(plot_bytes(_loss_figure(results.metrics)), "Loss terms over the hidden patches.")


def _scores(results: DemoResults) -> str:
    evaluation = results.evaluation
    assert evaluation is not None
    ours = evaluation.scores[0].features
    rows, marks = [], []
    for features, classifier in sorted(evaluation.rows, key=lambda row: -evaluation.mean(*row).accuracy):
        mean = evaluation.mean(features, classifier)
        values = [100 * score.accuracy for score in evaluation.select(classifier, features, symmetric=True)]
        interval = f"{100 * mean.low:.1f} to {100 * mean.high:.1f}"
        cells = [f"{value:.1f}" for value in (*values, 100 * mean.accuracy)]
        rows.append([features, classifier, *cells, interval])
        marks.append(features == ours)
    used = sorted({score.test_image_size for score in evaluation.scores})
    header = ["features", "classifier", *(f"{size} px" for size in used), "mean %", "95%"]
    curve = (results.out / "scores" / "scale_curve.png").read_bytes()
    count = len(evaluation.scores[0].hits)
    return (
        "<h2>How good are the features?</h2><p>Weighted vote of the 20 nearest neighbors (cosine, "
        "temperature 0.07); images are downsampled to each size by area averaging. "
        f"{count} simulated test scenes of eight classes, so chance is 12.5%. "
        "<i>knn-standardized</i> standardizes each feature by the training set first. The scenes differ from "
        "those of pretraining.</p>"
        + figure(
            curve,
            "Accuracy against image size, with 95% intervals, each with its better classifier.",
            "png",
        )
        + table(header, rows, marks=marks, numbers_from=2)
    )


def _searches(results: DemoResults) -> str:
    precision, chance = results.precision
    text = (
        f"<h2>Search</h2><p>{results.embedded:,} chips, real and simulated, are in one archive. Among the "
        f"ten nearest of a "
        f"simulated scene, {100 * precision:.0f}% are of its class; the chance level is "
        f"{100 * chance:.0f}%.</p>"
    )
    return text + "".join(figure(image.read_bytes(), caption, "png") for caption, image in results.searches)


def _contract(results: DemoResults) -> str:
    return (
        "<h2>Imagery that does not fit is refused</h2><p>The model was trained on 8-bit RGB. "
        "A query with the "
        "four-band Sentinel-2 scene is an error:</p>"
        f"<pre>{escape(results.refusal)}</pre>"
    )


def _next() -> str:
    return (
        "<h2>Your own GeoTIFFs</h2><pre>"
        "swath inspect scenes/ --sensor sentinel2_l2a --out catalog.parquet\n"
        "swath pretrain configs/scale_mae_chips_cpu.yaml --data scenes/ --out runs/mine "
        "--set sensor=sentinel2_l2a\n"
        "swath evaluate knn runs/mine/model labeled/\n"
        "swath embed runs/mine/model scenes/ --to archive --layout chips --chip-size 128\n"
        "swath search archive query.tif -k 10 --contact-sheet results.png</pre>"
    )


def _foot(results: DemoResults) -> str:
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in results.seconds.items() if name != "all")
    about = ", ".join(f"{name} {value}" for name, value in results.about.items())
    return f"<footer><h2></h2><p>{escape(times)}.</p><p>{escape(about)}.</p></footer>"


# ------------------------------------------------------------------------------------------------ images


def _thumbnails(height: int = 260) -> Any:
    """The real scenes side by side, downsampled."""
    import numpy as np
    from PIL import Image

    from swath.rasters.read import read_header, read_window
    from swath.samples import samples_dir

    tiles = []
    for path in (*sorted(samples_dir("aerial").glob("*.tif")), *samples_dir("sentinel2").glob("*.tif")):
        header = read_header(path)
        width = round(height * header.width / header.height)
        bands = [0, 1, 2] if header.bands == 3 else [2, 1, 0]  # Sentinel-2: B04, B03, B02
        stored, _ = read_window(header, bands=bands, out_shape=(height, width))
        image = stored.astype(np.float32)
        if header.dtype != "uint8":
            low, high = np.percentile(image, (1, 99))
            image = np.clip((image - low) / (high - low), 0, 1) * 255
        tiles += [image.astype(np.uint8).transpose(1, 2, 0), np.full((height, 6, 3), 255, np.uint8)]
    return Image.fromarray(np.concatenate(tiles[:-1], axis=1))


def _classes(rows: int = 3, size: int = 112) -> Any:
    """A few simulated scenes of each class, one column per class."""
    from PIL import Image, ImageDraw

    from swath.simulated import KINDS, simulate_scene

    gap, head = 5, 18
    sheet = Image.new("RGB", (len(KINDS) * (size + gap) - gap, head + rows * (size + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, kind in enumerate(KINDS):
        pen.text((column * (size + gap) + 2, 3), kind, fill="black")
        for row in range(rows):
            scene = simulate_scene(7, column + row * len(KINDS), size=size)
            sheet.paste(Image.fromarray(scene.image), (column * (size + gap), head + row * (size + gap)))
    return sheet


def _loss_figure(metrics: list[dict[str, Any]]) -> Figure:
    """Loss terms against the number of views."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    logged = [line for line in metrics if "loss/total" in line]
    for name in sorted(key for key in logged[0] if key.startswith("loss/")):
        axes.plot([m["images"] for m in logged], [m[name] for m in logged], label=name.removeprefix("loss/"))
    axes.set_xlabel("views")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure
