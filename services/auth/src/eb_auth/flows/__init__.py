"""Steps on a Tx that several doors share, by what they are about."""
