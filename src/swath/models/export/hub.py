"""Model directories and the Hugging Face Hub: a folder to upload, and `from_pretrained` that opens one.

A model directory has the Hub's layout already (``config.json``, ``model.safetensors``, ``README.md``). The
card's YAML front matter says what the Hub wants to know; the export adds how the model is loaded from there.
`from_pretrained` opens a local folder, or a repository of the Hub, which the package ``huggingface_hub``
fetches or has in its cache. There is no code and no pickle in either, and checksums are verified.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from swath.errors import CheckpointError, ContractError
from swath.files import atomic_folder
from swath.models.directory import load_model, read_config
from swath.models.download import MODEL_FILES, model_folder
from swath.models.export.registry import ExportOptions, ExportResult, exporters
from swath.models.model import Model

_LARGE_FILES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@exporters.register("hub")
def export_to_hub(model: Model, out: Path, choices: ExportOptions) -> ExportResult:
    """Write a folder as the Hub wants it, which `from_pretrained` opens.

    Raises:
        ContractError: The model has no directory of its own yet, or a choice that means nothing here.
        CheckpointError: There is something else at `out`.
    """
    for name in ("sensor", "gsd", "size"):
        if getattr(choices, name) is not None:
            raise ContractError(f"{name}: the whole model is exported, with all that it takes; leave it out")
    source = choices.source
    if source is None:
        raise ContractError("a Hub folder is made of a model directory: save the model, and give its path")
    if out.is_dir() and any(out.iterdir()):
        read_config(out)  # only a model may be replaced
        if out.resolve() == source.resolve():
            raise CheckpointError(f"{out}: is the model itself; choose another folder")
    elif out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: is a file; a Hub folder goes elsewhere")
    with atomic_folder(out) as folder:
        for name in MODEL_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        card = _card(model, (source / "README.md").read_text(encoding="utf-8"))
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / ".gitattributes").write_text(_LARGE_FILES, encoding="utf-8")
    usage = f"import swath\nmodel = swath.from_pretrained({str(out)!r})  # or the name of its repository"
    left = ("a license: state one in the front matter of README.md, minding that of the training imagery",)
    return ExportResult(out, usage, left, {"model": model.id, "files": sorted(f.name for f in out.iterdir())})


def _card(model: Model, text: str) -> str:
    """The model card with what the Hub shows beside it: the model's name, and how it is loaded from there."""
    text = text.replace(
        "---\nlibrary_name: swath\n", f"---\nlibrary_name: swath\nmodel_name: {model.name}\n", 1
    )
    return text.replace(
        'swath.load_model("path/to/this/folder")',
        'swath.from_pretrained("path/to/this/folder")  # or "owner/name" of its repository on the Hub',
    )


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    device: str | torch.device = "cpu",
) -> Model:
    """The model in a local folder, or in a repository of the Hugging Face Hub.

    As `swath.load_model`, with a say in where the Hub's files are kept.

    Args:
        name: A folder; or ``owner/name`` of a repository, where there is no such folder.
        revision: Branch, tag or commit of the repository; a commit is the safe choice.
        cache_dir: Where the Hub's files are kept; by default where ``huggingface_hub`` keeps them.
        local_files_only: Do not ask the network: the repository must be in the cache.
        device: Where the weights go.

    Raises:
        CheckpointError: No such folder or repository; not in the cache; not a model of Swath, or damaged.
        SwathError: A repository is asked for and the package huggingface_hub is not installed.
    """
    return load_model(model_folder(name, revision, cache_dir, local_files_only), device=device)
