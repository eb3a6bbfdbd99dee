"""Every SQL statement of the ledger, a function per question."""
