"""What every kind of generator needs to train locally: batches, learning rate, EMA, Adam state."""
