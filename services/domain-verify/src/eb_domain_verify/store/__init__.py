"""Every SQL statement of domain-verify: claims and their challenges, and the mails that came in."""
