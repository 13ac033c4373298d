"""The files of a suite."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.evaluation.report.tables import command_line, software_versions
from swath.evaluation.suites.results import SuiteResult, SuiteScore
from swath.evaluation.suites.tables import markdown
from swath.files import atomic_path, write_json

if TYPE_CHECKING:
    pass


def write_suite_report(result: SuiteResult, folder: str | Path, *, command: str | None = None) -> list[Path]:
    """Write ``suite.html``, ``.json``, ``.csv`` and ``.md`` into `folder`, each whole or not at all."""
    from swath.evaluation.suites.page import write_suite_page

    folder = Path(folder)
    command = command or command_line()
    write_json(folder / "suite.json", {
        "suite": result.suite.model_dump(mode="json"),
        "models": result.models,
        "finished": result.finished,
        "datasets": [asdict(one) for one in result.datasets],
        "software": software_versions(),
        "command": command,
    })  # fmt: skip
    text = io.StringIO(newline="")
    columns = [
        "set", "status", "protocol", "features", "role", "classifier", "metric", "value", "ci95_low",
        "ci95_high",
        "test", "chance", "difference_to_best_baseline", "difference_ci95_low", "difference_ci95_high",
        "best_baseline", "scales",
        "partial", "reason", "protocol_id", "config_hash", "split_hash", "software", "command",
    ]  # fmt: skip
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for one in result.datasets:
        about = {"set": one.title, "status": one.status, "partial": int(one.partial), "reason": one.reason}
        about |= {
            "software": " ".join(f"{k}={v}" for k, v in software_versions().items()),
            "command": command,
        }
        writer.writerows({**about, **_flat(row), **one.origins.get(row.protocol, {})} for row in one.rows)
        if not one.rows:
            writer.writerow(about)
        writer.writerows(
            {**about, "features": name, "reason": why} for name, why in one.not_applicable.items()
        )
    for path, content in ((folder / "suite.csv", text.getvalue()), (folder / "suite.md", markdown(result))):
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8", newline="")
    written = [folder / name for name in ("suite.json", "suite.csv", "suite.md")]
    return [write_suite_page(result, folder / "suite.html", command=command), *written]


def _flat(row: SuiteScore) -> dict[str, Any]:
    return {
        "protocol": row.protocol,
        "features": row.features,
        "role": row.role,
        "classifier": row.classifier,
        "metric": row.metric,
        "value": row.value,
        "ci95_low": row.low,
        "ci95_high": row.high,
        "test": row.test,
        "chance": row.chance,
        "difference_to_best_baseline": row.difference,
        "difference_ci95_low": row.gap_low,
        "difference_ci95_high": row.gap_high,
        "best_baseline": row.baseline,
        "scales": " ".join(f"{image_size}:{value}" for image_size, value in row.scales.items()),
    }
