"""Network paths to a server: addresses of this machine, and the proxy that the environment names for the others."""

from __future__ import annotations

import socket
from contextlib import suppress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def is_this_machine(host: str) -> bool:
    """Return whether ``host`` is an address of this machine: loopback's, or one of its own."""
    with suppress(OSError, UnicodeError):
        for family, kind, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with suppress(OSError), socket.socket(family, kind) as probe:
                probe.bind(address)  # possible for the machine's own addresses alone
                return True
    return False


def proxy_for(url: str) -> str | None:
    """Return the proxy for a ws:// or wss:// address, as the environment and $no_proxy have it.

    None for addresses of this machine, which http:// clients here reach without a proxy, too.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_this_machine(host) or proxy_bypass(f"{host}:{parts.port or (443 if parts.scheme == 'wss' else 80)}"):
        return None
    proxies = getproxies()
    schemes = ("wss", "socks", "https") if parts.scheme == "wss" else ("ws", "socks", "https", "http")
    return next((proxies[scheme] for scheme in schemes if proxies.get(scheme)), None)


def describe_proxy(proxy: str, url: str) -> str:
    """Return words for messages: which proxy is asked, and how to leave it out; without its credentials."""
    scheme, separator, rest = proxy.rpartition("://")
    shown = f"{scheme}{separator}{rest.rpartition('@')[2]}"
    return f"through the proxy {shown} of the environment (add {urlsplit(url).hostname} to $no_proxy to leave it out)"
