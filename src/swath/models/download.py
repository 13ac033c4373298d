"""Where a model directory is: a local folder, or a repository of the Hugging Face Hub that is fetched."""

from __future__ import annotations

import re
from pathlib import Path

from swath.errors import CheckpointError, SwathError

MODEL_FILES = ("config.json", "model.safetensors", "objective.safetensors", "mlm.json", "README.md")


def model_folder(
    name: str | Path,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """A local folder as it is, or the snapshot of a repository of the Hub.

    Args:
        name: A folder; or ``owner/name`` of a repository, where there is no such folder.
        revision: Branch, tag or commit of the repository.
        cache_dir: Where the Hub's files are kept; by default where ``huggingface_hub`` keeps them.
        local_files_only: Do not ask the network: the repository must be in the cache.

    Raises:
        CheckpointError: No such folder or repository, or not in the cache.
        SwathError: A repository is asked for and the package huggingface_hub is not installed.
    """
    if Path(name).exists():
        if revision is not None:
            raise CheckpointError(
                f"{name}: is a local folder, which has no revision {revision!r}; leave it out"
            )
        return Path(name)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(name)):
        raise CheckpointError(
            f"{name}: there is no such model directory, and a repository is named owner/name"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise SwathError(
            f"{name}: there is no such model directory, and to look on the Hub the package "
            "huggingface_hub is needed: pip install huggingface_hub"
        ) from None
    try:
        found = snapshot_download(
            str(name),
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=list(MODEL_FILES),
        )
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{name}: there is no such model directory, and the Hub's cache does not hold it (or the network "
            "is not reached). Fetch it once with the network on, or give the folder's path"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name}: the Hub does not give it ({reason})") from None
    return Path(found)
