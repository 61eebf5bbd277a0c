"""Looking names of the configuration up."""

from fvcore.common.registry import Registry


def registered(registry: Registry, key: str, name: str):
    """What the value ``name`` of a configuration key stands for.

    Raises:
        ValueError: nothing of that name is registered; names the key and lists what is.
    """
    if name not in registry:
        names = ", ".join(sorted(known for known, _ in registry))
        raise ValueError(f"{key} is {name!r}; it must be one of {names}")
    return registry.get(name)
