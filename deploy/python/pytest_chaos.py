"""A pytest fixture that breaks the network through a ``chaos agent``, and heals it.

    def test_a_slow_database(chaos):
        with chaos.fault("unit:api.service", loss="10%", match={"peer_port": 5432}) as fault:
            ...
            assert fault.stats().both("dropped_packets") > 0

The fault is in the kernel when the block begins and gone when it ends, whatever ends it. A thread renews its lease;
should the test be killed, the agent ends the fault when the lease is over. Only the standard library is used.
"""

import http.client
import json
import os
import socket
import ssl
import threading
import urllib.parse

import pytest

DEFAULT_SOCKET = "/run/chaos/agent.sock"
#: How long an answer may take, in seconds. Arming takes some 0.1 s; names may have to be resolved.
ANSWER_LIMIT = 30.0
#: The longest time between two renewals, in seconds.
RENEW = 1.0


class ChaosError(Exception):
    """The agent cannot be asked."""


class Refused(ChaosError):
    """The agent says no (RFC 9457): ``status``, ``detail``, ``mend``, and ``errors`` with JSON pointers."""

    def __init__(self, problem):
        self.status = problem.get("status")
        self.detail = problem.get("detail", "")
        self.mend = problem.get("mend")
        self.errors = problem.get("errors", [])
        super().__init__(self.detail + (f" (try: {self.mend})" if self.mend else ""))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=ANSWER_LIMIT)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Stats:
    """Exact counters by name, such as ``matched_packets``: ``egress`` left the target, ``ingress`` came to it."""

    def __init__(self, answer):
        self.egress = answer.get("egress", {})
        self.ingress = answer.get("ingress", {})

    def both(self, name):
        return self.egress.get(name, 0) + self.ingress.get(name, 0)


class Fault:
    """A fault that the agent holds for us, as long as the ``with`` block lasts."""

    def __init__(self, chaos, body):
        self._chaos = chaos
        self._over = threading.Event()
        # When this returns, the agent has said that the fault is in the kernel.
        self.view = chaos.ask("POST", "/v1/faults", body)
        self.id = self.view["id"]
        lease = self.view.get("lease_remaining_seconds") or RENEW
        self._thread = threading.Thread(target=self._renew, args=(min(RENEW, lease / 3),), daemon=True)
        self._thread.start()

    def stats(self):
        """Its counters now."""
        return Stats(self._chaos.ask("GET", f"/v1/faults/{self.id}/stats"))

    def explain(self):
        """What it does, in words and places."""
        return self._chaos.ask("POST", "/v1/faults:explain", self.view["request"])

    def heal(self):
        """Ends it; what it was, with its last counters. Ending it again is no error."""
        self._over.set()
        return self._chaos.ask("DELETE", f"/v1/faults/{self.id}")

    def _renew(self, period):
        while not self._over.wait(period):
            try:
                self._chaos.ask("POST", f"/v1/faults/{self.id}/renew")
            except Refused as refused:
                if refused.status in (404, 410):
                    return
            except ChaosError:
                # It is tried again; if that goes on, the lease ends the fault.
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.heal()


class Chaos:
    """Asks one agent: at ``url`` with ``key``, or at a Unix socket.

    Unless told: ``CHAOS_URL`` with ``CHAOS_KEY`` (and ``CHAOS_CA`` for https), else ``CHAOS_SOCKET``, else
    ``/run/chaos/agent.sock``.
    """

    def __init__(self, path=None, url=None, key=None):
        self.url = url or (None if path else os.environ.get("CHAOS_URL"))
        self.key = key or os.environ.get("CHAOS_KEY")
        self.path = path or os.environ.get("CHAOS_SOCKET") or DEFAULT_SOCKET

    def fault(self, target=None, *, match=None, partition=None, duration="60s", lease="5s", **faults):
        """Sets a fault, to be used with ``with``.

        Faults are named as the flags of ``chaos inject``: ``loss="10%"``, ``delay="100ms"``, ``partition=True`` on one
        target. ``partition=("netns:a", "10.0.0.5")`` without a target cuts two apart. ``match`` has the conditions:
        ``{"peer_port": 5432}``. Other fields of the body (``name``, ``seed``, ``flap``, ``max_packets``,
        ``confirm``, ...) go through :meth:`hold`.
        """
        body = {"duration": duration, "lease": lease}
        if target is None:
            body["partition"] = {"sides": list(partition or ())}
        else:
            if partition is not None:
                faults["partition"] = partition
            body.update(target=target, faults=faults)
        if match:
            body["match"] = match
        return self.hold(body)

    def hold(self, body):
        """Sets a fault from a body as the API takes it; it should have a lease."""
        return Fault(self, body)

    def ask(self, method, path, body=None):
        """Any question of the API; the answer's JSON."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.url and self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection = self._connection()
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        except OSError as error:
            raise ChaosError(f"the agent at {self.url or self.path}: {error}") from error
        finally:
            connection.close()
        try:
            answered = json.loads(text)
        except ValueError:
            answered = {"detail": text.decode(errors="replace").strip()}
        if answer.status >= 300:
            raise Refused({"status": answer.status, **answered})
        return answered

    def _connection(self):
        if not self.url:
            return _UnixConnection(self.path)
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme == "https":
            trusted = ssl.create_default_context(cafile=os.environ.get("CHAOS_CA"))
            return http.client.HTTPSConnection(parts.netloc, timeout=ANSWER_LIMIT, context=trusted)
        return http.client.HTTPConnection(parts.netloc, timeout=ANSWER_LIMIT)


@pytest.fixture
def chaos():
    """The agent of the environment; a test that needs it is skipped where none listens."""
    agent = Chaos()
    try:
        agent.ask("GET", "/v1/status")
    except Refused:
        raise
    except ChaosError as error:
        pytest.skip(str(error))
    return agent
