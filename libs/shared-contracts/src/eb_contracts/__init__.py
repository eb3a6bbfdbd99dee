"""What crosses a process boundary: messages, ids, money and the base of all refusals. No behaviour."""
