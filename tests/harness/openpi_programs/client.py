"""openpi's real client; runs in the environment of openpi-client, knows nothing of us.

Usage: client.py PORT KIND. Prints one JSON object per reply: `{"metadata": …}` first, then `{"actions": …}` or `{"error": …}`.
"""

import json
import sys

import numpy as np
from openpi_client import image_tools
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, kind = int(sys.argv[1]), sys.argv[2]
client = WebsocketClientPolicy("127.0.0.1", port)
print(json.dumps({"metadata": client.get_server_metadata()}))
generator = np.random.default_rng(0)
for step in range(3):
    images = generator.integers(0, 255, (2, 256, 256, 3), dtype=np.uint8)
    observation = {
        "observation/image": image_tools.convert_to_uint8(image_tools.resize_with_pad(images[0], 224, 224)),
        "observation/wrist_image": image_tools.convert_to_uint8(image_tools.resize_with_pad(images[1], 224, 224)),
        "observation/state": np.arange(8) / 10 + step,
        "prompt": "pick up the black bowl",
    }
    if kind == "no_state" and step == 1:
        del observation["observation/state"]
    if kind == "wrong_image" and step == 1:
        observation["observation/image"] = observation["observation/image"].astype(np.float32)
    if kind == "too_large" and step == 1:
        observation["padding"] = np.zeros(3 * 2**20, dtype=np.uint8)
    try:
        reply = client.infer(observation)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        break
    actions = reply["actions"]
    print(
        json.dumps({"actions": actions.tolist(), "dtype": str(actions.dtype), "timing": list(reply["server_timing"])})
    )
