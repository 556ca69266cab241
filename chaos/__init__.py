"""What breaks RelayMesh on purpose: scenarios, fault injectors, simulated clusters, history checkers."""
