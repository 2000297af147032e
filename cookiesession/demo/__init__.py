"""The demonstration: one page where a person watches their own session at work."""

from cookiesession.demo.app import create_app

__all__ = ["create_app"]
