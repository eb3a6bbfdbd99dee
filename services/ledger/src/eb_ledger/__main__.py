"""Run the ledger: `python -m eb_ledger [--doors api,consumers,jobs]`."""

from eb_kit.service import main

from .app import SERVICE

if __name__ == "__main__":
    main(SERVICE)
