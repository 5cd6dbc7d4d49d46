"""What each of the five step types does in one attempt."""
