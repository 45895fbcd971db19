"""Telling people what went wrong: what an incident is, which are open, and the channels by which they are told."""
