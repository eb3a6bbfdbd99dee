"""Run the estimator: `python -m eb_estimator [--doors api,consumers,jobs]`."""

from eb_kit.service import main

from .app import SERVICE

if __name__ == "__main__":
    main(SERVICE)
