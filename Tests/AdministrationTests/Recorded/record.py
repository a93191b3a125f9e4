#!/usr/bin/env python3
"""Runs the calls in the *.recorded files against the tgtd and tgtadm that are installed and writes their answers there.

`$` begins a call of tgtadm, `=` its exit code, `|` a line of its output, `!` one of its errors. The stores are sparse files
in /tmp/pcx.
"""
import glob, os, subprocess, time

STORES = {"disk1": 100 << 20, "disk2": 1 << 30, "disk3": 10 << 20}
os.makedirs("/tmp/pcx/dir", exist_ok=True)
for name, size in STORES.items():
    with open(f"/tmp/pcx/{name}", "ab") as store:
        store.truncate(size)

here = os.path.dirname(os.path.abspath(__file__))
environment = dict(os.environ, TGT_IPC_SOCKET="/tmp/pcx/socket")
for path in sorted(glob.glob(f"{here}/*.recorded")):
    with open(path) as record:
        calls = [line[2:-1] for line in record if line.startswith("$ ")]
    daemon = subprocess.Popen(["tgtd", "-f", "-C", "8", "--iscsi", "portal=127.0.0.1:13990"], env=environment, stderr=subprocess.DEVNULL)
    time.sleep(1)
    with open(path, "w") as record:
        for call in calls:
            end = subprocess.run(["tgtadm", "-C", "8"] + call.split(), env=environment, capture_output=True, text=True)
            record.write(f"$ {call}\n= {end.returncode}\n")
            record.writelines(f"| {line}\n" for line in end.stdout.splitlines())
            record.writelines(f"! {line}\n" for line in end.stderr.splitlines())
    daemon.kill()
    daemon.wait()
