"""Services for all runs of a runner: tracking, leases, recovery, stop, queries."""
