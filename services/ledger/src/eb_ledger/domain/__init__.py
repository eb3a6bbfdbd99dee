"""The ledger's rules, without I/O: shares, attribution, payers, lines."""
