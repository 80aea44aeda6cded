"""What schemathesis cannot know: which values of free text mean something, and that a stop has to be let go.

A non-empty text stays a non-empty text, so whether a body fits the schema does not change; but most of
what is made up becomes a real target, a real duration, a real fault, and reaches the kernel.
"""

import os
import zlib

import requests
import schemathesis

NETNS = os.environ["CHAOS_TEST_NETNS"]
EXAMPLES = {
    "target": f"netns:{NETNS}",
    "duration": "5s",
    "lease": "5s",
    "start_after": "10ms",
    "flap": "100ms/100ms",
    "seed": "7",
    "max_packets": "100",
    "max_bytes": "10kB",
    "max_targets": "5",
    "peer": "10.0.0.0/8",
    "peer_port": "80",
    "local": "10.0.0.0/8",
    "local_port": "8000-8100",
    "except": "10.9.0.0/16",
    "interface": "eth0",
    "share": "50%",
    "loss": "10%",
    "corrupt": "1%",
    "duplicate": "5%",
    "delay": "10ms",
    "rtt": "10ms",
    "reorder": "25%",
    "rate": "10Mbit/s",
    "mtu": "1200",
    "reset": "syn",
    "reject": "host",
    "refuse": "ETIMEDOUT",
    "stall": "close=10s",
    "dns": "nxdomain:*.internal",
    "mode": "drop",
    "isolate": f"netns:{NETNS}",
    "bridge": f"netns:{NETNS}",
}


def meant(key, value):
    """The value, made up or real; always the same for the same value."""
    if isinstance(value, dict):
        return {name: meant(name, part) for name, part in value.items()}
    if isinstance(value, list):
        return [meant(key, part) for part in value]
    if isinstance(value, str) and value and key in EXAMPLES:
        is_wild = zlib.crc32(value.encode("utf-8", "surrogatepass")) % 8 == 0
        # Never the host itself: the test shares its network with others.
        return value if is_wild and value not in ("host", "cgroup:/") else EXAMPLES[key]
    if key == "sides" and isinstance(value, str) and value:
        return EXAMPLES["target"] if len(value) % 2 else "10.0.0.0/8"
    return value


@schemathesis.hook
def map_body(context, body):
    return meant("", body)


@schemathesis.hook
def after_call(context, case, response):
    if case.path == "/v1/stop" and response.status_code == 200:
        place = response.request.url.split("/v1/")[0] + "/v1/resume"
        requests.post(place, headers={"x-chaos-key": os.environ["CHAOS_TEST_KEY"]}, timeout=20)
