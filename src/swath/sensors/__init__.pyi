from .matching import match_bands as match_bands
from .registry import get_sensor as get_sensor
from .registry import list_sensors as list_sensors
from .registry import read_sensor as read_sensor
from .registry import register_sensor as register_sensor
from .registry import write_sensor as write_sensor
from .sensor import UNITS as UNITS
from .sensor import Band as Band
from .sensor import Sensor as Sensor
from .units import to_unit as to_unit

__all__ = [
    "UNITS",
    "Band",
    "Sensor",
    "get_sensor",
    "list_sensors",
    "match_bands",
    "read_sensor",
    "register_sensor",
    "to_unit",
    "write_sensor",
]
