"""The order in which ready runs of one priority are claimed, as every store computes it."""

STARTED_BEFORE = -1e10
"""Added to the turn of a run that was claimed before, so that it comes before all new ones of its priority."""

EXECUTED_BEFORE = -1e9
"""Also added to the turn of a run that was running when its owner was lost; it comes before those that waited."""

TURN_STEP = 2**-13
"""Seconds between the turns of two runs with the same key.

Runs with a key are claimed in turn by start-time fair queueing. A new run gets the turn after the last one of its key,
but at least that of the run that comes next in its queue. So the first run of a key is behind at most one run of each
other key, however many are queued, and its later ones alternate with those. The step is short (0.12 ms), so that the
order of different queues stays nearly that of their due times. It is a power of two, so that sums of steps are exact.
"""
