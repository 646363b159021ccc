# SPDX-License-Identifier: Apache-2.0
"""What a YOLO data set's `data.yaml` says: where the splits are, and the names of the classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.files import YAML_FAULTS
from roi_codec_ros.lab.datasets.records import read_text, shown

_OTHER_KEYS = {"val": ("validation",)}  # as older files have it


@dataclass(frozen=True)
class DataYaml:
    """A `data.yaml`.

    names: of the classes, in lower case. places: where the photographs of each split are, as
    written. keypoints: numbers a row has behind its box; 0: rows are boxes or polygons.
    """

    file: Path
    names: dict[int, str]
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    base: str = ""
    keypoints: int = 0

    def folders(self, split: str) -> list[Path]:
        """The existing folders and file lists of a split, resolved as ultralytics does.

        Taken from this file's folder, whatever machine it was written on. Raises RoiCodecError for
        a folder elsewhere, which is ambiguous.
        """
        root = self.file.parent
        found = []
        for place in self._places(split):
            path = self._resolved(place)
            if path is None:
                continue
            if not path.resolve().is_relative_to(root.resolve()):
                raise RoiCodecError(
                    f"expected the photographs of {split} inside {root}, found {path} in "
                    f"{self.file.name}"
                )
            found.append(path)
        return found

    def _places(self, split: str) -> tuple[str, ...]:
        keys = (split, *_OTHER_KEYS.get(split, ()))
        return next((self.places[key] for key in keys if key in self.places), ())

    def _resolved(self, place: str) -> Path | None:
        root = self.file.parent
        place = place.replace("\\", "/")
        # Roboflow writes `../train/images` and means `train/images`.
        for name in (place, place.removeprefix("../")):
            for folder in (root / self.base.replace("\\", "/"), root):
                if name.strip("./") and (folder / name).exists():
                    return folder / name
        return None


def find_data_yaml(data_dir: Path) -> DataYaml | None:
    """`data.yaml`, or else the one .yaml or .yml file that has `names`.

    Raises RoiCodecError where it is broken, or several have different names.
    """
    for suffix in (".yaml", ".yml"):
        if (data_dir / f"data{suffix}").is_file():
            return read_data_yaml(data_dir / f"data{suffix}")
    files = sorted(path for path in data_dir.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))
    read = [data for data in map(read_data_yaml, files) if data is not None]
    if not read:
        return None
    first = read[0]
    for other in read[1:]:
        if other.names != first.names:
            raise RoiCodecError(
                f"expected one file with the names of the classes in {data_dir}, found "
                f"{first.file.name} and {other.file.name}, which differ"
            )
    return first


def read_data_yaml(path: Path) -> DataYaml | None:
    """None for another kind of YAML file. Raises RoiCodecError where it is broken."""
    data = _parsed(path)
    if not isinstance(data, dict) or not isinstance(data.get("names"), (list, dict)):
        return None
    names = _names(data["names"], path)
    count = data.get("nc")
    if count is not None and count != len(names):
        raise RoiCodecError(
            f"expected as many names as nc says in {path}, found {len(names)} and {shown(count)}"
        )
    return DataYaml(
        path,
        names,
        {str(key): _strings(value) for key, value in data.items() if _strings(value)},
        base=data["path"] if isinstance(data.get("path"), str) else "",
        keypoints=_keypoints(data.get("kpt_shape"), path),
    )


def _parsed(path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise RoiCodecError(
            f"reading {path.name} needs PyYAML ({error}): pip install pyyaml"
        ) from error
    try:
        return yaml.safe_load(read_text(path))
    except RecursionError:
        raise RoiCodecError(f"expected YAML in {path}, found it nested too deeply") from None
    except (*YAML_FAULTS, yaml.YAMLError) as error:
        raise RoiCodecError(f"expected YAML in {path}, found: {reason_of(error)}") from error


def _names(names: list[Any] | dict[Any, Any], path: Path) -> dict[int, str]:
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    read: dict[int, str] = {}
    for key, name in numbered.items():
        index = int(key) if isinstance(key, str) and key.strip().isdecimal() else key
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise RoiCodecError(f"expected numbered names in {path}, found {shown(key)}")
        if not isinstance(name, (str, int, float)) or isinstance(name, bool):
            raise RoiCodecError(
                f"expected a text as name of class {shown(index)} in {path}, found {shown(name)}"
            )
        if index in read:
            raise RoiCodecError(f"expected each class once in {path}, found {shown(index)} again")
        read[index] = str(name).strip().lower()
    return read


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return ()


def _keypoints(shape: Any, path: Path) -> int:
    if shape is None:
        return 0
    good = isinstance(shape, list) and len(shape) == 2
    if not good or not all(type(side) is int and 0 < side < 1000 for side in shape):
        raise RoiCodecError(
            f"expected kpt_shape: [points, 2 or 3] in {path}, found {shown(shape)}"
        )
    return int(shape[0] * shape[1])
