"""Theory to lay over measurements: published formulas, evaluated; nothing is simulated."""
