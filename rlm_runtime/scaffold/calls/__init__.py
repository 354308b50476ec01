"""`calls` agents: the model decides the steps, one function call a turn."""
