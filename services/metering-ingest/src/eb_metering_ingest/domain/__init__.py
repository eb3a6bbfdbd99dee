"""The rules of metering, without I/O."""
