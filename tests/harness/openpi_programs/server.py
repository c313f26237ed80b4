"""A policy server on openpi-client's own msgpack code; runs in the environment of openpi-client, knows nothing of us.

Usage: server.py PORT BEHAVIOUR FOLDER. Prints `ready PORT`. Saves the first observation to FOLDER/observation.npz.
"""

import pathlib
import sys
import threading
import time
import traceback

import numpy as np
from openpi_client import msgpack_numpy
from websockets.sync.server import serve

port, behaviour, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
lock = threading.Lock()
state = {"requests": 0, "connections": 0}


def infer(observation):
    with lock:
        state["requests"] += 1
        number = state["requests"]
        if number == 1:
            np.savez(folder / "observation.npz", **{key.replace("/", "."): value for key, value in observation.items()})
    if behaviour == "slow":
        time.sleep(0.5)
    if behaviour == "wrong_shape":
        return {"actions": np.zeros((10, 6))}
    if behaviour == "nan":
        return {"actions": np.full((10, 7), np.nan)}
    if behaviour == "no_actions":
        return {"act": np.zeros((10, 7))}
    if behaviour == "raises" or (behaviour == "raises_later" and number > 3):
        raise RuntimeError("CUDA error: out of memory")
    actions = np.zeros((10, 7), dtype=np.float32)
    actions[:, :3] = observation["observation/state"][:3] / 4
    return {"actions": actions, "server_timing": {"infer_ms": 1.0}}


def converse(connection):
    packer = msgpack_numpy.Packer()
    with lock:
        state["connections"] += 1
    metadata = {
        "model": "a test",
        "reset_pose": [0.0, 1.0],
        "started": state["connections"] if behaviour == "fickle" else 0,
    }
    connection.send("hello" if behaviour == "text_first" else packer.pack(metadata))
    for requests in range(1, 1_000_000):
        try:
            request = connection.recv()
        except Exception:
            return
        if behaviour == "hangs_up" or (behaviour == "drops" and requests % 3 == 0):
            connection.socket.close()
            return
        if behaviour == "fickle" and requests == 2:
            connection.close(1011, "restarting")
            return
        try:
            connection.send(packer.pack(infer(msgpack_numpy.unpackb(request))))
        except Exception:
            connection.send(traceback.format_exc())
            connection.close(1011, "Internal server error. Traceback included in previous frame.")
            return


with serve(converse, "127.0.0.1", port, compression=None, max_size=None) as server:
    print("ready", server.socket.getsockname()[1], flush=True)
    server.serve_forever()
