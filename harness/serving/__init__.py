"""`vla-serve`: a policy behind a websocket, for evaluations in another process, environment or machine."""
