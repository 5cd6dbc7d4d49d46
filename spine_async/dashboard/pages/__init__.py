"""The pages. Each is a function that gets a visit and returns an answer."""
