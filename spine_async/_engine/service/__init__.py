"""What serves many runs: tracking, leases, recovery, stop, queries."""
