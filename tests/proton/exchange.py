"""Sends 25 messages to an address through one router and receives them through another."""
import sys

from proton import Message
from proton.handlers import MessagingHandler
from proton.reactor import Container

COUNT = 25


class Exchange(MessagingHandler):
    def __init__(self, send_port, receive_port):
        super().__init__()
        self.ports = (send_port, receive_port)
        self.address = f"test.{send_port}.{receive_port}"
        self.sent = self.accepted = self.received = 0

    def on_start(self, event):
        self.sending = event.container.connect(f"amqp://127.0.0.1:{self.ports[0]}", reconnect=False)
        self.receiving = event.container.connect(f"amqp://127.0.0.1:{self.ports[1]}", reconnect=False)
        event.container.create_receiver(self.receiving, self.address, name="receiver")
        event.container.schedule(30, self)

    def on_link_opened(self, event):
        if event.receiver:
            self.sender = event.container.create_sender(self.sending, self.address)

    def on_sendable(self, event):
        self.send(event.sender)

    def send(self, sender):
        # One at a time: the first ones may come before the address is known everywhere.
        if sender.credit and self.sent == self.accepted < COUNT:
            self.sent += 1
            sender.send(Message(body={"n": self.accepted}))

    def on_accepted(self, event):
        self.accepted += 1
        self.send(event.sender)

    def on_released(self, event):
        self.sent -= 1
        event.container.schedule(0.1, Again(self, event.sender))

    def on_message(self, event):
        assert event.message.body == {"n": self.received}, event.message
        self.received += 1
        if self.received == COUNT:
            self.finish()

    def on_timer_task(self, event):
        self.finish()

    def on_transport_error(self, event):
        print("transport:", event.transport.condition)

    def finish(self):
        print(f"received {self.received} of {COUNT}")
        sys.stdout.flush()
        self.sending.close()
        self.receiving.close()
        if self.received < COUNT:
            sys.exit(1)
        sys.exit(0)


class Again:
    def __init__(self, exchange, sender):
        self.exchange, self.sender = exchange, sender

    def on_timer_task(self, event):
        self.exchange.send(self.sender)


Container(Exchange(*map(int, sys.argv[1:3]))).run()
