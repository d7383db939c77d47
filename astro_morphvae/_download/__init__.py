"""Files fetched over the network: in parallel, patiently, each validated before it is kept."""

__all__ = []
