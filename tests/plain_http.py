"""What clients of plain HTTP have in common."""

from __future__ import annotations

import ssl

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For `verify`: otherwise each client of httpx loads the certificates of all authorities, which takes 30 ms."""
