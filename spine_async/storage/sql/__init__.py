"""The store for SQLite and PostgreSQL."""
