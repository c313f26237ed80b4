"""How policies are rolled out: simulator, workers, batching, policies, ensembling, recording."""
