"""Which proxy a URL is asked through.

In: a URL, and the environment. Out: the proxy's URL or None. `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured;
loopback is never sent through one.
"""

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

__all__ = ["proxy_for"]


def proxy_for(url: str) -> str | None:
    """The proxy for this URL, None for none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
