"""Monte-Carlo experiments: random problems, scores, runs over many trials, curves and traces."""
