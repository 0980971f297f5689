"""Looking inside a network, or a classical method: how low-rank, how sparse, stage by stage."""
