"""What every room of the engine needs of the runner; it executes nothing."""
