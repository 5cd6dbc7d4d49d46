"""The resources that all runs of one runner share; executes nothing."""
