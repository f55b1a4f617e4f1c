"""Django's database backend for PostgreSQL, with what this project asks of it besides."""
