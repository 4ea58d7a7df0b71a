"""Postgres: connections, tenancy, migrations and the bundled servers."""
