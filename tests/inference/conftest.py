"""Small videos with known frames."""

import cv2
import numpy as np
import pytest


def frame_of(number, height=32, width=48):
    """Grey of a level that tells the 0-based number, with a white corner at the top left."""
    frame = np.full((height, width, 3), 10 + 10 * number, np.uint8)
    frame[: height // 4, : width // 4] = 255
    return frame


@pytest.fixture(scope="session")
def number_of():
    """Gives the number of a decoded frame of ``make_video``."""

    def number(frame):
        return round((float(frame[-8:, -8:].mean()) - 10) / 10)

    return number


@pytest.fixture(scope="session")
def make_video():
    """Writes a video of up to 24 frames: ``make_video(path, num_frames, height, width, fps)``."""

    def make(path, num_frames=20, height=32, width=48, fps=20):
        code = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}[path.suffix]
        writer = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), fps, (width, height)
        )
        for number in range(num_frames):
            writer.write(frame_of(number, height, width))
        writer.release()
        return path

    return make
