"""Traces as a collector receives them: a real receiver of OTLP over HTTP, a real agent, a real container."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.agent_process import AgentProcess
from support.cli import command_line, written
from support.dashboard_stub import DashboardStub, Reply
from support.waiting import eventually

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Receives traces, decodes them as the protocol has them, and keeps their spans."""

    def __init__(self) -> None:
        """Listen on loopback."""
        self.spans: list[Span] = []
        self.services: set[str] = set()
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                keep(self.rfile.read(int(self.headers["Content-Length"])))
                body = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def named(self, *names: str) -> list[Span]:
        """The spans of these names, once all of them came."""
        eventually(lambda: set(names) <= {one.name for one in self.spans}, f"spans {names}")
        return list(self.spans)

    def _keep(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for one in request.resource_spans:
            self.services |= {each.value.string_value for each in one.resource.attributes if each.key == "service.name"}
            self.spans += [span for scope in one.scope_spans for span in scope.spans]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """One, for one test."""
    made = Collector()
    yield made
    made.close()


def test_a_task_is_one_trace_from_its_order_to_its_delivery(
    collector: Collector, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """The caller's; the dashboard is told, and may go on with it; a failed delivery is seen too."""
    settings = {"AGP_OTLP_ENDPOINT": collector.url, "AGP_WARM": 0}
    dashboard.script("traced", Reply(500, b"{}"))
    with AgentProcess(tmp_path, dashboard.url, dashboard.token, settings) as agent:
        body = {"task_id": "traced", "playbook": {"name": "a.sh", "content": "echo hi; exit 3\n"}}
        header = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        assert agent.request("POST", "/execute_task", json=body, headers=header).status_code == 202
        delivery = dashboard.acknowledged("traced")
    spans = collector.named("accept", "queue", "prepare", "release", "run", "finish", "task", "deliver")
    (task,) = (one for one in spans if one.name == "task")
    assert {one.trace_id.hex() for one in spans} == {TRACE}
    assert task.parent_span_id.hex() == CALLER
    assert {one.parent_span_id for one in spans if one is not task} == {task.span_id}
    assert [one.status.message for one in spans if one.name == "deliver"] == ["the dashboard answered 500", ""]
    assert delivery.headers["traceparent"] == f"00-{TRACE}-{task.span_id.hex()}-01"
    attributes = {one.key: one.value for one in task.attributes}
    assert attributes["agp.task_id"].string_value == "traced"
    assert attributes["agp.exit_code"].int_value == 3
    assert collector.services == {"agp-agent"}
    times = {one.name: (one.start_time_unix_nano, one.end_time_unix_nano) for one in spans}
    assert times["accept"][0] <= times["prepare"][0] < times["run"][0] < times["run"][1] <= times["task"][1]


def test_a_delivery_by_the_next_agent_belongs_to_the_same_trace(
    collector: Collector, dashboard: DashboardStub, tmp_path: Path
) -> None:
    """What came with the order stands in the journal."""
    dashboard.script("late", Reply(503, b"{}", {"Retry-After": "300"}))
    settings = {"AGP_OTLP_ENDPOINT": collector.url}
    with AgentProcess(tmp_path, dashboard.url, dashboard.token, settings) as agent:
        body = {"task_id": "late", "playbook": {"name": "a.sh", "content": "true\n"}}
        agent.request("POST", "/execute_task", json=body, headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
        eventually(lambda: dashboard.deliveries("late"), "a first delivery")
        agent.stop()
        (task,) = (one for one in collector.named("task") if one.name == "task")
        collector.spans.clear()
        agent.start()
        agent.request("POST", "/tasks/late/delivery/retry")
        dashboard.acknowledged("late")
    (deliver,) = (one for one in collector.named("deliver") if one.name == "deliver")
    assert (deliver.trace_id.hex(), deliver.parent_span_id) == (TRACE, task.span_id)


def test_a_collector_that_is_not_there_costs_nothing_but_its_traces(dashboard: DashboardStub, tmp_path: Path) -> None:
    """Results come as ever, and the agent stops in good order."""
    with AgentProcess(tmp_path, dashboard.url, dashboard.token, {"AGP_OTLP_ENDPOINT": "http://127.0.0.1:1"}) as agent:
        agent.accept_task("untraced", "echo hi\n")
        assert dashboard.result("untraced")["output"] == "hi\n"
        assert agent.stop() == 0
        assert "Traceback" not in agent.log_text()


def test_a_playbook_that_is_run_by_hand_is_not_traced(
    collector: Collector, environment: dict[str, str], tmp_path: Path
) -> None:
    """Traces are of the dashboard's tasks; whoever tries a playbook or a runner sends none."""
    ended = command_line(environment | {"AGP_OTLP_ENDPOINT": collector.url})(
        "run", written(tmp_path, "p.sh", "echo hi")
    )
    assert (ended.returncode, ended.stdout) == (0, "hi\n")
    assert collector.spans == []
