"""Pages in a browser that show runs, queues and schedules."""
