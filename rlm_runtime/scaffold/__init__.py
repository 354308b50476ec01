"""What an agent is: how it reads texts and asks the model."""
