"""What lies past this service's edge: the public suffix list, DNS, and the process that judges hostile bytes."""
