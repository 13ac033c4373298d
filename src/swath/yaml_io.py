"""YAML as people mean it: keys once only, `1e-4` a number, and errors with the line."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from swath.errors import RecipeError
from swath.files import atomic_path


@cache
def _loader() -> Any:
    """PyYAML's safe loader with two repairs: duplicate keys are errors, and YAML 1.2's form of floats."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            twice = sorted({str(key) for key in keys if keys.count(key) > 1})
            if twice:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key given twice: {', '.join(twice)}", node.start_mark
                )
            return super().construct_mapping(node, deep)

    # YAML 1.1, which PyYAML reads, takes 1e-4 for text because it has no point.
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )
    return Loader


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file.

    Raises:
        RecipeError: No such file, not text, not YAML; names the file and the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({error})") from None
    return yaml_value(text, str(path))


def yaml_value(text: str, where: str) -> Any:
    """The value of a piece of YAML; `where` is named in the error."""
    import yaml

    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not valid YAML: {error}") from None


def yaml_text(data: Any) -> str:
    """`data` as YAML, in its own order, short lists on one line."""
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None))


def write_yaml(path: str | Path, data: Any) -> None:
    """Write `data` as YAML, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(yaml_text(data), encoding="utf-8")
