"""One step, from its first attempt to an encoded result."""
