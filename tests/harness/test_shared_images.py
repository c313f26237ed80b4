from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from harness.rollout import shared_images
from harness.rollout.shared_images import ImageSlots

SHAPE = (2, 1, 4, 4, 3)


def test_another_process_writes_what_this_one_reads() -> None:
    descriptor = shared_images.create(ImageSlots.bytes_for(SHAPE))
    slots = ImageSlots(descriptor, SHAPE)
    code = f"from harness.rollout.shared_images import ImageSlots; ImageSlots({descriptor}, {SHAPE}).images[1] = 7"
    subprocess.run([sys.executable, "-c", code], check=True, pass_fds=[descriptor])
    assert (slots.images[0] == 0).all()
    assert (slots.images[1] == 7).all()
    os.close(descriptor)


def test_no_cameras_need_no_memory() -> None:
    shape = (2, 0, 256, 256, 3)
    descriptor = shared_images.create(ImageSlots.bytes_for(shape))
    assert ImageSlots(descriptor, shape).images.shape == shape
    os.close(descriptor)


def test_nothing_is_left_behind() -> None:
    before = set(os.listdir("/dev/shm"))
    descriptor = shared_images.create(1 << 20)
    np.testing.assert_array_equal(ImageSlots(descriptor, (1, 1, 8, 8, 3)).images, 0)
    assert set(os.listdir("/dev/shm")) == before
    os.close(descriptor)
