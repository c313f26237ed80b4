"""The simulator behind one small interface. Only this folder imports mujoco, robosuite and LIBERO, inside a worker."""
