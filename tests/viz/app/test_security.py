"""Who is answered, and what the page may load."""

from __future__ import annotations

import pytest
from thoughtlens.viz.app.security import content_policy, is_loopback, welcome


@pytest.mark.parametrize(
    ("asked", "host", "answered"),
    [
        ("127.0.0.1:8050", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("[::1]:8050", "127.0.0.1", True),
        ("LOCALHOST:1", "127.0.0.1", True),
        ("rebound.test:8050", "127.0.0.1", False),
        ("127.0.0.1.rebound.test", "127.0.0.1", False),
        ("192.168.1.7:8050", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
        ("192.168.1.7:8050", "0.0.0.0", True),
        ("rebound.test", "0.0.0.0", False),
        ("wug.lab:80", "wug.lab", True),
        ("rebound.test", "wug.lab", False),
    ],
)
def test_only_the_served_host_is_answered(asked, host, answered):
    assert welcome(asked, host) is answered


def test_loopback_is_told_from_other_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "wug.lab", "::")))


def test_the_policy_lets_no_other_script_run_and_nothing_be_asked_elsewhere():
    rules = dict(rule.split(" ", 1) for rule in content_policy(["'sha256-x='"]).split("; "))
    assert rules["default-src"] == "'self'" and rules["script-src"] == "'self' 'sha256-x='"
    assert rules["object-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
