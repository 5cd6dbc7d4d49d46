"""What the web routers and the dashboard share: requests, problem documents, event streams.

No module of this package imports a web framework.
"""
