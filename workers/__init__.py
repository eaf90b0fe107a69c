"""Turns a due session into a verdict, and maybe an alert."""
