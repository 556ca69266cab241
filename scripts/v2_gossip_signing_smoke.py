#!/usr/bin/env python3
"""Signed gossip: two nodes with one secret accept each other; with another secret the packets are refused."""

import json
import socket
import subprocess
import sys

import _scenario


def free_ports(count):
    """Return UDP ports of the loopback interface that were free a moment ago."""
    held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def sync(scenario, secrets):
    """Let two roots with these secrets gossip at once; return what both said."""
    ports = free_ports(2)
    started = []
    for name, secret, own, other in zip("ab", secrets, ports, reversed(ports), strict=True):
        root = scenario.root / name
        root.mkdir(parents=True, exist_ok=True)
        (root / "relaymesh-settings.json").write_text(json.dumps({"gossipSharedSecret": secret}), encoding="utf-8")
        words = [sys.executable, "-m", "relaymesh", "--root", str(root), "--output", "json", "gossip-sync"]
        words += ["--node-id", f"node-{name}", "--bind-port", str(own), "--seeds", f"127.0.0.1:{other}"]
        words += ["--rounds", str(scenario.options.rounds), "--window-ms", str(scenario.options.window_ms)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    answers = []
    for process in started:
        out, err = process.communicate(timeout=120)
        scenario.check("gossip-sync ends well", process.returncode == 0, err.strip()[-500:])
        answers.append(json.loads(out))
    return answers


def body(scenario):
    equal = sync(scenario, ["one secret for both of them", "one secret for both of them"])
    accepted = sum(answer["accepted"] for answer in equal)
    scenario.check("with equal secrets packets are accepted", accepted >= 1, equal)
    scenario.check("with equal secrets none is invalid", sum(answer["invalid"] for answer in equal) == 0, equal)
    metrics = subprocess.run(
        [sys.executable, "-m", "relaymesh", "--root", str(scenario.root / "a"), "metrics"],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    signing = "relaymesh_gossip_signing_enabled 1" in metrics.splitlines()
    scenario.check("the metrics say that packets are signed", signing)
    unequal = sync(scenario, ["one secret for both of them", "and then another one for b"])
    scenario.check("with unequal secrets packets are invalid on the second node", unequal[1]["invalid"] >= 1, unequal)
    refused = sum(answer["accepted"] for answer in unequal)
    scenario.check("with unequal secrets none is accepted", refused == 0, unequal)
    scenario.passed(accepted=accepted, invalid=unequal[1]["invalid"])


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_gossip_signing_smoke", __doc__, rounds=(6, int), window_ms=(700, int)).run(body)
