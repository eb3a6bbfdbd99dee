"""The rules of domain claims, without I/O: names, claims, mails, signatures, DMARC, verdicts, proofs."""
