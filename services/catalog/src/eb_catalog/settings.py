"""Settings of the catalog."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from eb_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the catalog is told."""

    rounding: Literal["half_up", "half_even"] = Field(
        "half_up",
        description="How charges are rounded to the currency's minor unit; part of every terms' hash.",
    )
    resolve_batch: int = Field(
        50, ge=1, le=1000, description="Most organisations whose terms are resolved in one transaction."
    )
