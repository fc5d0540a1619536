"""What searches found, as tables and figures: trials, importance, the best so far."""
