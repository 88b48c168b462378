"""Programs that print figures and the command that found them. None of them is a test."""
