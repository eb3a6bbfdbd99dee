"""Every SQL statement of the catalog."""
