"""Sensors by name: the built-in ones, those of plug-ins, and YAML files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from swath.errors import ImageryError
from swath.registry import Registry
from swath.sensors.sensor import Sensor

if TYPE_CHECKING:
    pass

sensors: Registry[Sensor] = Registry("sensor", "swath.sensors")


def register_sensor(sensor: Sensor) -> Sensor:
    """Make `sensor` known by its name in this process; returns it."""
    builtin_sensors()
    return sensors.register(sensor.name)(sensor)


def builtin_sensors() -> tuple[str, ...]:
    """Names of the sensors that come with Swath as YAML files; registers them when first asked for."""
    with _first_asked:  # of several threads that ask first, one registers them and the others wait
        return _registered()


_first_asked = Lock()


@cache
def _registered() -> tuple[str, ...]:
    folder = Path(__file__).parent / "builtin"
    found = [read_sensor(path) for path in sorted(folder.glob("*.yaml"))]
    for sensor in found:
        sensors.register(sensor.name)(sensor)
    return tuple(sensor.name for sensor in found)


def list_sensors() -> list[str]:
    """Names of all known sensors: built in, registered, and announced by installed packages."""
    builtin_sensors()
    return sensors.names()


def get_sensor(sensor: str | Path | Sensor) -> Sensor:
    """The sensor of this name, or that this YAML file describes, or itself.

    Raises:
        SwathError: Unknown name (the message suggests one), or the file is missing or wrong.
    """
    if isinstance(sensor, Sensor):
        return sensor
    if isinstance(sensor, Path) or sensor.endswith((".yaml", ".yml")) or "/" in sensor:
        return read_sensor(sensor)
    builtin_sensors()
    return sensors.get(sensor)


def read_sensor(path: str | Path) -> Sensor:
    """Read and check a sensor's YAML file.

    Raises:
        ImageryError: With the file, the path of each wrong key and how to put it right.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageryError(f"{path}: cannot read the sensor file: {error}") from None
    try:
        data = yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise ImageryError(f"{path}: not valid YAML: {error}") from None
    return Sensor.from_dict(data, where=str(path))


@cache
def _loader() -> Any:
    """PyYAML's safe loader, but a key given twice is an error instead of the last one winning."""
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

    return Loader


def write_sensor(sensor: Sensor, path: str | Path) -> None:
    """Write `sensor` as a YAML file that `read_sensor` reads back equal (atomically)."""
    import yaml

    from swath.files import atomic_path

    data = sensor.model_dump(mode="json", exclude_defaults=True)
    with atomic_path(path) as temporary:
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
        temporary.write_text(text, encoding="utf-8")
