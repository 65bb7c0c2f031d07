"""The feed: reads one symbol's frames off the exchange's socket, and keeps that socket alive and honest."""
