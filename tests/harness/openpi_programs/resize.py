"""openpi's own resizing. Usage: resize.py IN.npy OUT.npy; arrays uint8 (N, H, W, 3)."""

import sys

import numpy as np
from openpi_client import image_tools

images = np.load(sys.argv[1])
np.save(sys.argv[2], np.stack([image_tools.resize_with_pad(image, 224, 224) for image in images]))
