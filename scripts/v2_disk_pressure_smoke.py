#!/usr/bin/env python3
"""Disk pressure: a limit that no disk meets makes the root unwell, and its absence well again."""

import _scenario


def body(scenario):
    scenario.command("init")
    scenario.settings(minFreeDiskBytes=900_000_000_000_000)
    pressed = scenario.document("health", status=1)
    scenario.check("the root is not well", pressed["ok"] is False, pressed)
    scenario.check("it is short of disk", pressed["diskPressure"] is True, pressed)
    metrics = scenario.command("metrics").splitlines()
    scenario.check(
        "the metrics say so", "relaymesh_disk_pressure 1" in metrics, [m for m in metrics if "pressure" in m]
    )
    scenario.settings(minFreeDiskBytes=0)
    well = scenario.document("health")
    scenario.check("it is well again", well["ok"] is True and well["diskPressure"] is False, well)
    scenario.passed(diskFreeBytes=well["diskFreeBytes"])


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_disk_pressure_smoke", __doc__).run(body)
