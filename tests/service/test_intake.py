"""Bodies under way and requests that are worked on: each bounded, and neither by the other."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from service.intake import Bodies, BodyTooLarge, Crowded, Places

pytestmark = pytest.mark.anyio

EACH: Final = 100


@dataclass
class Client:
    """A body that arrives piece by piece, as the test says."""

    pieces: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)

    async def receive(self) -> dict[str, Any]:
        return await self.pieces.get()

    def send(self, body: bytes, *, more: bool = True) -> "Client":
        self.pieces.put_nowait({"type": "http.request", "body": body, "more_body": more})
        return self

    def leave(self) -> None:
        self.pieces.put_nowait({"type": "http.disconnect"})


def reading(bodies: Bodies, client: Client) -> asyncio.Task[bytes]:
    return asyncio.ensure_future(bodies.read(client.receive))


async def turn() -> None:
    """Let everybody do what can be done now."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("pieces", [[b""], [b"abc"], [b"a", b"bc"], [b"", b"x" * EACH], [b"a"] * 9])
async def test_a_body_is_read_whole(pieces: list[bytes]) -> None:
    """However it is cut, the body comes whole."""
    client = Client()
    for piece in pieces[:-1]:
        client.send(piece)
    client.send(pieces[-1], more=False)
    assert await Bodies(EACH).read(client.receive) == b"".join(pieces)


@pytest.mark.parametrize("pieces", [[EACH + 1], [EACH, 1], [1] * (EACH + 1)])
async def test_a_body_too_large_is_not_read_whole(pieces: list[int]) -> None:
    """The piece that makes it too large is the last that is read."""
    client = Client()
    for size in pieces:
        client.send(b"x" * size)
    with pytest.raises(BodyTooLarge):
        await Bodies(EACH).read(client.receive)


async def test_a_client_that_leaves() -> None:
    """A body whose client is gone never comes."""
    client = Client().send(b"a")
    client.leave()
    with pytest.raises(ClientDisconnect):
        await Bodies(EACH).read(client.receive)


async def test_the_largest_body_makes_room() -> None:
    """When bodies under way take too much together, the largest goes, and the others come."""
    bodies = Bodies(EACH, 250)
    clients = [Client().send(b"x" * size) for size in (90, 95, 60)]
    tasks = [reading(bodies, client) for client in clients]
    await turn()
    assert not any(task.done() for task in tasks)
    clients[2].send(b"x" * 10)
    await turn()
    with pytest.raises(Crowded):
        await tasks[1]
    for client in (clients[0], clients[2]):
        client.send(b"", more=False)
    assert [len(await tasks[0]), len(await tasks[2])] == [90, 70]


async def test_what_is_over_takes_no_room() -> None:
    """Bodies that came, grew too large or were left take nothing from those after them."""
    bodies = Bodies(EACH)
    for last in (b"", b"x" * EACH):
        client = Client().send(b"x" * 50).send(last, more=False)
        await asyncio.gather(bodies.read(client.receive), return_exceptions=True)
    gone = Client().send(b"x" * 50)
    gone.leave()
    await asyncio.gather(bodies.read(gone.receive), return_exceptions=True)
    cancelled = reading(bodies, Client().send(b"x" * 50))
    await turn()
    cancelled.cancel()
    await turn()
    assert (bodies._sum, bodies._sizes) == (0, {})


STEPS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 60), st.booleans()), min_size=1, max_size=40
)


@given(steps=STEPS)
def test_bodies_under_way_never_take_more(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever arrives in whatever order, the sum is right, and within its bound."""

    async def play() -> None:
        bodies = Bodies(EACH, 2 * EACH)
        clients = [Client() for _ in range(8)]
        tasks = [reading(bodies, client) for client in clients]
        for number, size, more in steps:
            clients[number].send(b"x" * size, more=more)
            await turn()
            assert bodies._sum == sum(bodies._sizes.values()) <= bodies._together
        for client in clients:
            client.leave()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert bodies._sum == 0

    asyncio.run(play())


async def test_a_place_too_many() -> None:
    """With all places taken there is none for one more; one that is given back is free."""
    places = Places(1)
    with places:
        with pytest.raises(Crowded), places:
            pass
        assert places.taken == 1
    with places:
        assert places.taken == 1


async def test_a_place_is_given_back_whatever_happens() -> None:
    """An exception inside gives the place back, too."""
    places = Places(1)
    with pytest.raises(LookupError), places:
        raise LookupError
    assert places.taken == 0
