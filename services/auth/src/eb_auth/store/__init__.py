"""Every SQL statement of the auth service, by what it is about."""
