"""A tiny real service, run as a program: a server of gRPC or HTTP with health and nothing else.

It logs as the services of the shop do, drains on SIGTERM and ends with 0, unless it is told to
misbehave. It needs no package of the project, so that it can stand in for any of them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SETTINGS = ("NATS_URL", "LOG_FORMAT", "MESH_HOME")
"""What it says of its environment."""


def log(message: str, **fields: object) -> None:
    line = {"ts": time.time(), "level": "INFO", "msg": message, **fields}
    print(json.dumps(line), flush=True)


def serve_grpc(options: argparse.Namespace) -> Callable[[], object]:
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    status = health_pb2.HealthCheckResponse
    servicer.set("", status.NOT_SERVING if options.not_serving else status.SERVING)
    server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    return lambda: server.stop(0.2).wait()


def serve_http(options: argparse.Namespace) -> Callable[[], object]:
    class Health(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = b'{"detail": "orders does not serve"}'
            self.send_response(503 if options.not_serving else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", options.port), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.shutdown


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--http", action="store_true", help="as the edge does")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--not-serving", action="store_true")
    parser.add_argument("--with-child", action="store_true")
    parser.add_argument("--write", type=int, default=0, help="bytes to write at once")
    options = parser.parse_args()

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: None if options.ignore_sigterm else stopped.set())
    if options.with_child:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        log("child", pid=child.pid)
    end = serve_http(options) if options.http else serve_grpc(options)
    log("serving", port=options.port, **{name: os.environ.get(name) for name in SETTINGS})
    if options.write:
        print("x" * options.write, flush=True)
    while not stopped.wait(0.1):
        pass
    end()
    log("drained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
