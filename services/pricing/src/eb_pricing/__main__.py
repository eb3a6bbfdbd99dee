"""Run pricing: `python -m eb_pricing [--doors api,consumers,jobs]`."""

from eb_kit.service import main

from .app import SERVICE

if __name__ == "__main__":
    main(SERVICE)
