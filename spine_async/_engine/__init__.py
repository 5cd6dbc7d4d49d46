"""How a run proceeds. Knows the model and the ports; no SQL, no adapter, no tracing library.

The way of one step: `execution` takes it from the `cursor`, `attempt` brings it to a `StepResult` (middleware,
deadline, retries, handler), `settling` says what that adds and where the run goes next, the `ledger` keeps it and the
`journal` commits it, and the next step begins.
"""
