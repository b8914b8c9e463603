"""Many HTTP/2 connections to one service: how many, who waits, and what follows when one fails or ends."""

from __future__ import annotations

import asyncio

import pytest

from towpath.http import Reply, TransportError
from towpath.http2.connection import IDLE_S, QUIET_S, STREAMS, Connection
from towpath.http2.pool import Pool
from towpath.http2.stream import Stream, Unprocessed
from towpath.testing.loop import virtual

from .http2_peer import Peer, reset

pytestmark = pytest.mark.spec("P051")
OK = Reply(200, {}, b"ok")


class Service:
    """Connections by script; `failures` are what the next attempts end with, `gate` holds them all up."""

    def __init__(self, most: int = 10, **settings: int) -> None:
        self.pool = Pool(self.dial, most)
        self.settings = Peer.settings(**settings)
        self.peers: list[Peer] = []
        self.failures: list[TransportError] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.attempts = 0
        self.leaving = False
        self.sends: list[asyncio.Task[Reply]] = []

    async def dial(self, pool: Pool) -> Connection:
        self.attempts += 1
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        peer = Peer(owner=pool, ready=False)
        peer.say(self.settings)
        pool.opened(peer.connection)
        self.peers.append(peer)
        if self.leaving:
            peer.connection.leave()
        return peer.connection

    def send(self, count: int = 1, timeout_s: float = 15.0) -> list[asyncio.Task[Reply]]:
        loop = asyncio.get_running_loop()
        asked = [
            Stream(b"\x82", b"", 1000, timeout_s, loop.time() + timeout_s, loop.create_future())
            for _ in range(count)
        ]
        begun = [loop.create_task(self.pool.exchange(stream)) for stream in asked]
        self.sends += begun
        return begun

    def answer(self, *peers: Peer) -> None:
        """Answer whatever is under way."""
        for peer in peers or self.peers:
            for number in [*peer.connection.streams]:
                peer.say(peer.answer(number))

    @property
    def loads(self) -> list[int]:
        return [len(peer.connection.streams) for peer in self.peers]


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def error_of(task: asyncio.Task[Reply]) -> TransportError:
    with pytest.raises(TransportError) as raised:
        await task
    return raised.value


class TestGrowth:
    @pytest.mark.parametrize(
        ("under_way", "count"), [(1, 1), (76, 1), (77, 2), (150, 2), (300, 4), (5000, 10)]
    )
    @virtual
    async def test_as_many_as_what_is_under_way_needs(self, under_way: int, count: int) -> None:
        service = Service()
        service.send(under_way)
        await turn()
        assert (len(service.peers), service.pool.connections) == (count, count)
        assert max(service.loads) <= STREAMS
        assert sum(service.loads) == min(under_way, 1000)

    @virtual
    async def test_they_are_opened_before_they_are_full_and_filled_one_by_one(self) -> None:
        service = Service()
        service.send(60)
        await turn()
        service.send(30)
        await turn()
        assert service.loads == [90, 0]
        service.send(30)
        await turn()
        assert service.loads == [100, 20]

    @virtual
    async def test_a_service_that_allows_few_gets_more_connections(self) -> None:
        service = Service(max_concurrent_streams=10)
        service.send(5)
        await turn()
        service.send(20)
        await turn()
        assert service.loads == [10, 10, 5, 0]

    @virtual
    async def test_one_that_allows_none_for_now_is_waited_for(self) -> None:
        service = Service(max_concurrent_streams=0)
        [sending] = service.send()
        await turn()
        assert (service.loads, sending.done()) == ([0], False)
        service.peers[0].say(Peer.settings(max_concurrent_streams=1))
        service.answer()
        assert await sending == OK
        assert service.attempts == 1

    @virtual
    async def test_what_is_no_longer_needed_is_closed(self) -> None:
        service = Service()
        service.send(200)
        await turn()
        service.answer()
        await asyncio.gather(*service.sends)
        for _ in range(20):
            service.send()
            await asyncio.sleep(QUIET_S / 2)
            service.answer()
        assert service.pool.connections == 1
        assert [peer.tls.closing for peer in service.peers] == [False, True, True]

    @virtual
    async def test_nor_is_one_kept_for_nobody(self) -> None:
        service = Service()
        service.send()
        await turn()
        service.answer()
        await asyncio.sleep(IDLE_S + 2 * QUIET_S)
        assert service.pool.connections == 0
        [sending] = service.send()
        await turn()
        service.answer()
        assert await sending == OK
        assert service.attempts == 2


class TestWaiting:
    @virtual
    async def test_first_come_first_served(self) -> None:
        service = Service(most=1)
        first = service.send(100)
        second = service.send(50)
        await turn()
        assert service.loads == [100]
        service.peers[0].say(service.peers[0].answer(1), reset(3, 8))
        await turn()
        assert (service.loads, first[0].done(), first[1].done()) == ([100], True, True)
        later = service.send(1)
        await turn()
        service.answer()
        await asyncio.gather(first[0], *first[2:])
        assert service.loads == [49]
        service.answer()
        assert await asyncio.gather(*second, *later) == [OK] * 51
        assert isinstance(first[1].exception(), TransportError)

    @virtual
    async def test_who_finds_no_room_until_the_deadline_was_not_sent(self) -> None:
        service = Service(most=1)
        held = service.send(100, timeout_s=50.0)
        await turn()
        late, [patient] = service.send(3, timeout_s=2.0), service.send(timeout_s=40.0)
        await asyncio.sleep(1.9)
        assert not any(task.done() for task in late)
        await asyncio.sleep(0.2)
        errors = [await error_of(task) for task in late]
        assert not any(error.sent for error in errors)
        assert "busy" in str(errors[0])
        service.answer()
        await asyncio.gather(*held)
        service.answer()
        assert await patient == OK

    @virtual
    async def test_who_waits_for_a_connection_until_the_deadline_was_not_sent_either(self) -> None:
        service = Service()
        service.gate.clear()
        error = await error_of(service.send(timeout_s=2.0)[0])
        assert (error.sent, "no connection" in str(error)) == (False, True)
        await service.pool.close()

    @virtual
    async def test_who_leaves_takes_no_place(self) -> None:
        service = Service(most=1)
        held = service.send(100)
        await turn()
        [gone], [stays] = service.send(), service.send()
        await turn()
        gone.cancel()
        held[0].cancel()
        await turn()
        assert service.loads == [100]
        service.answer()
        assert await stays == OK
        assert gone.cancelled()


class TestFailures:
    @virtual
    async def test_all_who_wait_hear_why_there_is_no_connection(self) -> None:
        service = Service()
        service.failures = [TransportError("connection refused", sent=False)]
        errors = [await error_of(task) for task in service.send(20)]
        assert {str(error) for error in errors} == {"connection refused"}
        assert service.attempts == 1
        [sending] = service.send()
        await turn()
        service.answer()
        assert await sending == OK

    @virtual
    async def test_one_that_cannot_be_opened_harms_nobody_while_others_stand(self) -> None:
        service = Service()
        service.send(60)
        await turn()
        service.failures = [TransportError("connection refused", sent=False)] * 100
        service.send(60)
        await turn()
        assert (service.loads, service.attempts) == ([100], 2)
        service.send(60)
        await turn()
        assert service.attempts == 2
        await asyncio.sleep(QUIET_S - 1)
        service.peers[0].say(Peer.settings())
        service.failures.clear()
        await asyncio.sleep(1)
        service.send(1)
        await turn()
        assert service.loads == [100, 81, 0]

    @virtual
    async def test_one_that_ends_at_once_is_not_opened_for_ever(self) -> None:
        service = Service(max_concurrent_streams=0)
        [sending] = service.send()
        await turn()
        service.peers[0].connection.connection_lost(None)
        assert "before a request" in str(await error_of(sending))
        assert service.attempts == 1

    @virtual
    async def test_one_that_is_leaving_when_it_is_ready(self) -> None:
        service = Service()
        service.gate.clear()
        [sending] = service.send()
        await turn()
        service.leaving = True
        service.gate.set()
        assert "at once" in str(await error_of(sending))

    @virtual
    async def test_one_that_leaves_is_replaced_before_the_others_are_full(self) -> None:
        service = Service(most=2)
        service.send(110)
        await turn()
        service.answer()
        await turn()
        held = service.send(80)
        await turn()
        service.peers[1].connection.leave()
        service.send()
        await turn()
        assert service.loads == [81, 0, 0]
        service.answer()
        await asyncio.gather(*held)

    @virtual
    async def test_those_who_wait_go_to_another_when_one_ends(self) -> None:
        service = Service(most=1)
        held, waiting = service.send(100), service.send(10)
        await turn()
        service.peers[0].connection.connection_lost(None)
        await turn()
        assert service.loads == [0, 10]
        service.answer()
        assert await asyncio.gather(*waiting) == [OK] * 10
        assert {type(task.exception()) for task in held} <= {TransportError, Unprocessed}

    @virtual
    async def test_a_doubtful_one_gets_nothing_new(self) -> None:
        service = Service()
        [silent] = service.send(timeout_s=60.0)
        await asyncio.sleep(QUIET_S + 1)
        assert service.peers[0].connection.limit == 0
        [sending] = service.send()
        await turn()
        assert service.loads == [1, 1]
        service.answer(service.peers[1])
        assert await sending == OK
        error = await error_of(silent)
        assert error.sent
        assert asyncio.get_running_loop().time() < 4 * QUIET_S

    @virtual
    async def test_who_waits_for_a_doubtful_one_gets_another(self) -> None:
        service = Service(max_concurrent_streams=1)
        service.pool.most = 2
        for _ in range(2):
            service.send(timeout_s=60.0)
            await turn()
        assert service.loads == [1, 1]
        [waiting] = service.send(timeout_s=60.0)
        await asyncio.sleep(QUIET_S + 1)
        assert service.loads[2:] == [1]
        service.answer(service.peers[2])
        assert await waiting == OK
        await service.pool.close()
        await asyncio.gather(*service.sends, return_exceptions=True)


class TestClosing:
    @virtual
    async def test_it_ends_what_is_under_way_what_waits_and_what_is_opened(self) -> None:
        service = Service(most=2)
        sent = service.send(100)
        await turn()
        service.gate.clear()
        waiting = service.send(100)
        await turn()
        await service.pool.close()
        errors = [await error_of(task) for task in [*sent, *waiting]]
        assert {error.sent for error in errors[:100]} == {True}
        assert all(peer.tls.closing for peer in service.peers)
        assert service.pool.connections == 0
        assert not (await error_of(service.send()[0])).sent
