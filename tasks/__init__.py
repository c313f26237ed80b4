"""What is evaluated: suites, protocols, episode plans, init states, fixture poses, demonstrations.

Nothing here imports another package of the project, LIBERO or the simulator.
"""
