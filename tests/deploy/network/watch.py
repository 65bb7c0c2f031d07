"""Run on the network guest: note who sends what to the exchange's address, seen on the interfaces themselves.

Usage: watch.py ADDRESS FILE
FILE gets one JSON line for every first packet of a TCP connection and every other packet that is no TCP: time in
Unix nanoseconds, source, protocol number, destination port.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

ETH_P_IP = 0x0800
SYN, ACK = 0x02, 0x10
OUTGOING = 4  # packet(7): PACKET_OUTGOING; on loopback every packet is seen on its way out and on its way in


def main() -> None:
    """Watch until ended."""
    wanted = socket.inet_aton(sys.argv[1])
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    with open(sys.argv[2], "a") as file:
        while True:
            packet, origin = packets.recvfrom(65535)
            if origin[2] == OUTGOING or packet[16:20] != wanted:
                continue
            start = (packet[0] & 0x0F) * 4
            protocol, port = packet[9], 0
            if protocol == socket.IPPROTO_TCP:
                flags = packet[start + 13]
                if flags & (SYN | ACK) != SYN:
                    continue
            if protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                (port,) = struct.unpack_from(">H", packet, start + 2)
            source = socket.inet_ntoa(packet[12:16])
            print(
                json.dumps({"ns": time.time_ns(), "from": source, "protocol": protocol, "port": port}),
                file=file,
                flush=True,
            )


main()
