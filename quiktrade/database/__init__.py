"""Django's database backend for PostgreSQL, with what this project needs in addition."""
