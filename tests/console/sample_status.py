"""A status with something of everything, and foreign text that would steer a terminal if it were let."""

from __future__ import annotations

from relaymesh.node_view import AlertState
from relaymesh.rule_view import PauseView
from relaymesh.status_view import (
    StatusHealth,
    StatusLane,
    StatusMember,
    StatusOutcome,
    StatusPool,
    StatusRunning,
    StatusTrouble,
)

EVIL = "\x1b]0;own\x07\x1b[2J\r\n\u202e\x9b31m"


def sample_status(*, evil: str = EVIL) -> StatusOutcome:
    def member(name: str, status: str) -> StatusMember:
        return StatusMember(
            node_id=name + evil,
            status=status,
            process_alive=None,
            heartbeat_age_ms=1_000,
            status_age_ms=60_000,
            rtt_ms=None,
            generation=1,
            host="host" + evil,
            pid=7,
            running=1,
            drained=False,
        )

    return StatusOutcome(
        namespace="default",
        root="/tmp/data" + evil,
        checked_at_ms=1_000_000,
        nodes_alive=1,
        cluster_epoch=1,
        paused=False,
        pauses=(PauseView(scope="agent", name="a" + evil, since_ms=1, reason=evil),),
        members=(member("one", "ALIVE"), member("two", "DEAD")),
        members_total=2,
        lanes=tuple(
            StatusLane(priority=lane, waiting=5, ended=3, latency_p50_ms=10, latency_p95_ms=20, paused=False)
            for lane in ("HIGH", "NORMAL", "LOW")
        ),
        pools=(StatusPool(pool="process" + evil, used=1, slots=4),),
        running=tuple(
            StatusRunning(
                task_id=f"tsk_{n}" + evil,
                step_id=f"stp_{n}" + evil,
                agent="echo" + evil,
                priority="HIGH",
                attempt=1,
                owner="one" + evil,
                owner_status="ALIVE",
                lease_epoch=1,
                lease_age_ms=500,
                running_ms=900,
            )
            for n in range(30)
        ),
        running_total=30,
        trouble=(
            StatusTrouble(
                task_id="tsk_d" + evil,
                step_id="stp_d" + evil,
                agent="fail" + evil,
                status="DEAD_LETTER",
                attempt=3,
                age_ms=10,
                next_retry_in_ms=None,
                last_error="boom" + evil,
            ),
        ),
        retrying_total=0,
        dead_letter_total=1,
        throughput_per_s=1.5,
        alerts=(AlertState(rule="queue_lag", phase="firing", severity="critical", since_ms=1),),
        health=StatusHealth(
            ok=False,
            stalled_ms=0,
            disk_free_bytes=1,
            disk_pressure=True,
            lease_conflicts_1h=0,
            problems=("disk" + evil,),
        ),
    )
