"""What the terminal and the browser show of a run: its timeline, its graph, and summaries. It prints nothing."""
