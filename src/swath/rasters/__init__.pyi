from .header import SceneHeader as SceneHeader
from .header import read_header as read_header
from .read import read_window as read_window
from .safe_open import ReadLimits as ReadLimits
from .sensor_scene import SensorScene as SensorScene
from .sensor_scene import match_scene_to_sensor as match_scene_to_sensor
from .warp import read_on_grid as read_on_grid

__all__ = [
    "ReadLimits",
    "SceneHeader",
    "SensorScene",
    "match_scene_to_sensor",
    "read_header",
    "read_on_grid",
    "read_window",
]
