"""Executes runs. Knows the model and the ports; no SQL, no adapter, no tracing library.

The path of one step: `run/loop` takes the next step from `state/cursor`. `step/attempt` executes it (middleware,
deadline, retries, handler) and `step/encoding` encodes its result. `run/transition` applies the result to the scope,
the cursor and the pending writes. `commit/journal` commits them, and the loop continues.
"""
