#!/usr/bin/env python3
"""Runs the calls in tgtadm.recorded with the tgtadm that is installed and writes what it does there.

`$` begins a call, `=` its exit code, `!` a line of its errors, `>` its request: mode, op, lld (or -), tid, sid, lun, cid,
host_no, device_type, ac_dir, force, text.
"""
import os, socket, struct, subprocess, threading

PATH = "/tmp/pcx-client"
NAME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tgtadm.recorded")
ENVIRONMENT = dict(os.environ, TGT_IPC_SOCKET=PATH)


def receive(connection):
    request = b""
    while len(request) < 76 or len(request) < struct.unpack_from("<I", request, 72)[0]:
        piece = connection.recv(65536)
        if not piece:
            return None
        request += piece
    return request


def run(call):
    """Exit code, errors and the first request of one call; every request is answered with success."""
    if os.path.exists(PATH + ".0"):
        os.unlink(PATH + ".0")
    requests = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(PATH + ".0")
        listener.listen()

        def serve():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                requests.append(receive(connection))
                # `system delete` waits until nobody listens any more.
                listener.shutdown(socket.SHUT_RDWR)
                connection.sendall(struct.pack("<II", 0, 8))

        server = threading.Thread(target=serve)
        server.start()
        end = subprocess.run(["tgtadm"] + call.split(), env=ENVIRONMENT, capture_output=True, text=True)
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        server.join()
    return end.returncode, end.stderr.splitlines(), [request for request in requests if request]


with open(NAME) as record:
    calls = [line[2:-1] for line in record if line.startswith("$ ")]
with open(NAME, "w") as record:
    for call in calls:
        code, errors, requests = run(call)
        record.write(f"$ {call}\n= {code}\n")
        record.writelines(f"! {line}\n" for line in errors)
        for request in requests:
            mode, op, lld, _, *numbers = struct.unpack("<II64sIiQQIIIIII", request[:120])
            del numbers[7]
            fields = [mode, op, lld.rstrip(b"\0").decode() or "-"] + numbers + [request[120:-1].decode()]
            record.write("> " + " ".join(map(str, fields)) + "\n")
