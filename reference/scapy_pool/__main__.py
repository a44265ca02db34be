# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m scapy_pool [--keylog FILE]``: scapy's shell with the POOL layers and, if given, a key log."""

from __future__ import annotations

import argparse
import sys

import scapy.all
from scapy.main import interact

import scapy_pool
from poolref.errors import DecodeError

EXAMPLES = """\
POOL layers are loaded.  Try:
  c = pool_connect("127.0.0.1")            a session with a node on port 9253, kept alive in the background
  c = pool_connect("192.0.2.7", transport="raw", automatic=False)     raw IP; nothing is sent by itself
  c.sr1(PoolHeartbeat()).show()            send a packet, wait for its answer
  c.send(b"hello", channel=0)              DATA; any header field may be given: seq=, flags=, hmac=...
  c.send(c.make(b"x", hmac=bytes(32)))     a packet with a wrong hmac
  c.recv()                                 the next packet, decrypted;  c.rekey();  c.close()
  keyring.load("keys.log")                 decrypt by key log, or by the keys in a pcapng file, from now on
  sniff(offline="x.pcap", session=PoolSession).show()     whole packets, whole messages
  Pool(bytes.fromhex("..."), keys=...).auth               OK, BAD or NO_KEY
  bind_port(4711)                          another TCP port than 9253
"""


def main(argv: list[str] | None = None) -> int:
    """Open the shell; ends with it.  Exit status 2 when the key log cannot be read."""
    parser = argparse.ArgumentParser("python -m scapy_pool", description="scapy's shell with POOL layers")
    parser.add_argument(
        "--keylog",
        metavar="FILE",
        help="a key log to decrypt with, which is followed, or a pcapng capture with its keys inside",
    )
    options = parser.parse_args(argv)
    banner = EXAMPLES
    if options.keylog:
        try:
            banner += f"Key log {options.keylog}: {scapy_pool.keyring.load(options.keylog)} keys\n"
        except (OSError, DecodeError) as error:
            print(f"scapy_pool: {options.keylog}: {error}", file=sys.stderr)
            return 2
    names = {name: getattr(scapy_pool, name) for name in scapy_pool.__all__}
    print(banner)  # interact() shows a banner of ours in some shells only
    interact(mydict={**vars(scapy.all), **names}, argv=["scapy"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
