"""Rules of identity without I/O, clock or chance."""
