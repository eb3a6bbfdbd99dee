"""Run the catalog: `python -m eb_catalog`."""

from eb_kit.service import main

from .app import SERVICE

if __name__ == "__main__":
    main(SERVICE)
