import select
import socket
import threading
import time

from paho.mqtt.enums import CallbackAPIVersion

from resources.mqtt_client import MqttClient

CONNACK = b"\x20\x02\x00\x00"
PUBLISH = b"\x30\x08\x00\x03t/aabc"


def test_half_a_packet_does_not_go_on_in_the_next_connection() -> None:
    def serve(server: socket.socket) -> None:
        for answer in (CONNACK + PUBLISH[:6], CONNACK + PUBLISH):
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(answer)
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        client = MqttClient(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        received: list[bytes] = []
        deadline = time.monotonic() + 10
        for _ in range(2):
            client.connect(*server.getsockname())
            while (connection := client.socket()) is not None:
                assert time.monotonic() < deadline
                if select.select([connection], [], [], 0.1)[0]:
                    received += client.receive()[0].payloads
    assert received == [b"abc"]
