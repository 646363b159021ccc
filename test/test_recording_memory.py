# SPDX-License-Identifier: Apache-2.0
"""The tool that looks at the memory of `roi-codec anonymize`."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

rosbag2 = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

from roi_codec_ros.lab.tools.recording_memory import repeated, watched  # noqa: E402


def test_a_bag_is_repeated_with_ever_later_stamps(tmp_path):
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    message = store.types["std_msgs/msg/UInt8MultiArray"](
        store.types["std_msgs/msg/MultiArrayLayout"]([], 0), np.zeros(1000, np.uint8)
    )
    plugin = rosbag2.StoragePlugin.MCAP
    with rosbag2.Writer(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
        connection = writer.add_connection("/a", message.__msgtype__, typestore=store)
        content = store.serialize_cdr(message, message.__msgtype__)
        for number in range(3):
            writer.write(connection, 1000 + number, content)

    count = repeated(tmp_path / "bag", tmp_path / "long", 8000)

    with rosbag2.Reader(tmp_path / "long") as reader:
        stamps = [stamp for _, stamp, _ in reader.messages()]
    assert count == len(stamps) == 8
    assert stamps == sorted(set(stamps))


def test_a_run_is_ended_after_its_time_and_a_failed_one_is_told(tmp_path):
    output = tmp_path / "output"
    writes = f"open({str(tmp_path / 'part')!r}, 'wb').write(bytes(500)); "

    ended = watched([sys.executable, "-c", writes + "import time; time.sleep(60)"], output, 3.0)

    assert ended.ended
    assert ended.memory_mib and ended.written_bytes == 500
    with pytest.raises(subprocess.CalledProcessError):
        watched(
            [sys.executable, "-c", "import time; time.sleep(1); raise SystemExit(3)"], output, 30
        )
