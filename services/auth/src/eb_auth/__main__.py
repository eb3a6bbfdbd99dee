"""`python -m eb_auth`: run the auth service."""

from eb_kit.service import main

from .app import SERVICE

main(SERVICE)
