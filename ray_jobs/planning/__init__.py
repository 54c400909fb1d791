"""Settle what a job will do and what that will cost, before anything is spent on it."""
