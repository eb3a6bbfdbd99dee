"""Pricing's rules, without I/O: counters and the charges that move them, and how a charge is explained."""
