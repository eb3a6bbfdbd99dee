"""Run metering ingest: `python -m eb_metering_ingest [--doors api,consumers,jobs]`."""

from eb_kit.service import main

from .app import SERVICE

if __name__ == "__main__":
    main(SERVICE)
