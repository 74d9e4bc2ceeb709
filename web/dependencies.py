"""What was wired in when the application was built, for routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from config.settings import Settings


def config(request: Request) -> Settings:
    """The settings of this process."""
    settings: Settings = request.app.state.settings
    return settings


Config = Annotated[Settings, Depends(config)]
