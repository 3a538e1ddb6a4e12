"""Collects the vanflow records of a network, as the network observer of Skupper does.

vanflow.py collect PORT FILE   writes the records to FILE repeatedly until it is stopped
vanflow.py mute PORT           receives from all addresses, with credit for one message that is never renewed
vanflow.py garbage PORT FILE   sends invalid messages to every source, and writes their number to FILE
"""
import json
import os
import sys

from proton import Message, int32, ulong
from proton.handlers import MessagingHandler
from proton.reactor import Container


class Collector(MessagingHandler):
    def __init__(self, mode, port, file=None):
        super().__init__(prefetch=0 if mode == "mute" else 100)
        self.mode, self.port, self.file = mode, port, file
        self.sources, self.records, self.heartbeats, self.types = {}, {}, {}, set()
        self.sent = 0

    def on_start(self, event):
        self.container = event.container
        self.connection = event.container.connect(f"amqp://127.0.0.1:{self.port}", reconnect=False)
        self.receive("mc/sfe.all")
        event.container.schedule(0.1, self)

    def receive(self, address):
        receiver = self.container.create_receiver(self.connection, address)
        if self.mode == "mute":
            receiver.flow(1)

    def on_message(self, event):
        message = event.message
        if message.subject == "BEACON":
            self.beacon(message.properties)
        elif message.subject == "HEARTBEAT":
            properties = message.properties
            self.heartbeats[properties["id"]] = properties["now"]
        elif message.subject == "RECORD":
            for record in message.body:
                self.types |= {type(k).__name__ for k in record}
                record = {int(k): v for k, v in record.items()}
                self.records.setdefault(record[1], {}).update(record)

    def beacon(self, properties):
        if properties["id"] in self.sources:
            return
        self.sources[properties["id"]] = dict(properties)
        if self.mode == "collect":
            self.receive(properties["address"])
            self.receive(properties["address"] + ".flows")
        sender = self.container.create_sender(self.connection, properties["direct"])
        sender.name_of = properties["id"]
        if self.mode == "garbage":
            name = properties["id"].split(":")[0]
            self.container.create_sender(self.connection, f"vfcr.{name}:0").name_of = properties["id"]

    def on_sendable(self, event):
        sender = event.sender
        if getattr(sender, "done", False):
            return
        sender.done = True
        if self.mode == "collect":
            sender.send(Message(subject="FLUSH"))
        if self.mode != "garbage":
            return
        own = sender.name_of.split(":")[0]
        bodies = [None, "x", [], {}, [None, 1, "x"], [{}], [{0: 16}], [{"a": "b"}], b"\0" * 5000, list(range(2000))]
        bodies += [[{0: 16, 1: f"{own}:{n}", 60: n, 62: "x" * 4000, 61: -1}] for n in ("x", -1, 2**60, "")]
        bodies += [[{0: int32(1), 1: f"{own}:0", 30: "mine"}], [{ulong(0): 16, ulong(1): f"{own}:1", 4: ulong(1)}]]
        for body in bodies:
            for subject in (None, "RECORD", "FLUSH", "flush", "BEACON", "\u2603" * 100):
                sender.send(Message(subject=subject, body=body, properties={"v": 7}))
                self.sent += 1

    def on_timer_task(self, event):
        if self.file:
            state = {
                "sources": self.sources,
                "heartbeats": self.heartbeats,
                "records": self.records,
                "keys": sorted(self.types),
                "sent": self.sent,
            }
            with open(self.file + ".new", "w") as out:
                json.dump(state, out, default=str)
            os.rename(self.file + ".new", self.file)
        self.container.schedule(0.1, self)

    def on_transport_error(self, event):
        print("transport:", event.transport.condition)
        sys.exit(1)


Container(Collector(*sys.argv[1:])).run()
