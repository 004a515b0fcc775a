"""Waiting for the worker: it holds up nothing else, ends by itself, and a late answer lands nowhere else."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import gradio as gr
import pytest
from gradio.context import LocalContext

from app import worker
from app.session import drafts, question
from app.session.drafts import OpenConcept
from app.tabs import curate_preview
from app.tabs.curate_preview import ShownPreview
from app.worker import WorkerRequest
from crce import files
from crce.concepts import edits
from crce.concepts.spec import ConceptSpec, Term
from crce.errors import CrceError
from crce.worker import client
from crce.worker.answers import DistancesAnswer, ErrorAnswer, PreviewAnswer, Sphere, StatusAnswer, TermDistance
from crce.worker.broker import MOST_CONNECTIONS, RequestBroker
from crce.worker.client import Address, write_address
from crce.worker.requests import DistancesRequest, PreviewRequest, StatusRequest

PATIENCE = 100  # seconds until a test gives up; nothing here takes that long
FROG = ConceptSpec("frog", corefs=(Term("toad"),), retains=(Term("newt"),))
GONDOLA = ConceptSpec("gondola")
PICTURES = PreviewAnswer(("a", "b", "c"), ("d", "e", "f"), 0.1, 0.2, ("frog", "toad", "newt"))


def until(true) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def address() -> tuple[str, int]:
    found = client.read_address()
    return found.host, found.port


# Sockets that say nothing


def ended(send) -> str:
    """How the sending ended; it must end long before the test's patience does."""
    said: list[str] = []

    def run() -> None:
        try:
            send()
        except CrceError as error:
            said.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE / 2)
    assert said, "it still waits"
    return said[0]


def test_a_worker_that_takes_no_more_connections_is_not_waited_for(home):
    """The queue of its socket is full, so that not even the connection comes about."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        write_address(Address(*full.getsockname(), "00" * 32))
        crowd = [socket.socket() for _ in range(4)]
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        assert "does not answer" in ended(lambda: client.send(StatusRequest(), timeout=0.5))
        for each in crowd:
            each.close()


@pytest.mark.parametrize("said", [b"", b"\x00" * 4, b"\x00" * 7 + b"\x50" + b"half"])
def test_a_worker_that_stops_in_the_middle_of_a_message_is_not_waited_for(home, said):
    with socket.create_server(("127.0.0.1", 0)) as stuck:
        write_address(Address(*stuck.getsockname(), "00" * 32))
        heard: list[socket.socket] = []

        def answer() -> None:
            heard.append(stuck.accept()[0])
            heard[0].sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        assert "does not answer" in ended(lambda: client.send(StatusRequest(), timeout=0.5))


def test_a_worker_that_is_stopped_is_not_waited_for(home):
    process = subprocess.Popen([sys.executable, "-m", "crce", "worker"], cwd=files.ROOT)
    try:
        until(client.address_file().exists)
        os.kill(process.pid, signal.SIGSTOP)
        assert "it is busy" in ended(lambda: client.send(StatusRequest(), timeout=0.5))
    finally:
        process.kill()
        process.wait()


def test_silent_connections_take_few_threads_and_are_closed(broker):
    before = threading.active_count()
    silent = [socket.create_connection(address()) for _ in range(3 * MOST_CONNECTIONS)]
    # Those above the limit are closed at once, and the others because they say nothing.
    for connection in silent[::-1]:
        connection.settimeout(PATIENCE)
        assert threading.active_count() - before <= MOST_CONNECTIONS
        while connection.recv(1000):
            pass
    until(lambda: threading.active_count() == before)
    assert client.send(StatusRequest(), timeout=PATIENCE) == StatusAnswer("cpu")


def test_a_request_for_which_nobody_waits_any_more_leaves_the_queue(broker):
    with pytest.raises(CrceError, match="it is busy"):
        client.send(DistancesRequest("tab", "emoji-sd", FROG), timeout=0.5)
    until(lambda: broker.waiting() == 0)


def test_a_request_is_answered_however_long_it_takes(broker):
    """While it waits, the worker looks from time to time whether the other end is still there."""
    answers: list[object] = []
    ask = DistancesRequest("tab", "emoji-sd", FROG)
    thread = threading.Thread(target=lambda: answers.append(client.send(ask, PATIENCE)), daemon=True)
    thread.start()
    pending = broker.take(PATIENCE)
    time.sleep(1.5)
    pending.reply(DistancesAnswer((), 77, Sphere(1.0, ())))
    thread.join(PATIENCE)
    assert answers == [DistancesAnswer((), 77, Sphere(1.0, ()))]


# A page that waits


def page(tab: str) -> gr.Request:
    return gr.Request(session_hash=tab)


def show(spec: ConceptSpec, tab: str = "tab") -> OpenConcept:
    """The concept is opened on the page."""
    opened = OpenConcept(spec, spec)
    token = LocalContext.request.set(page(tab))
    question.show(opened)
    LocalContext.request.reset(token)
    return opened


def move_slider(opened: OpenConcept, text: str) -> OpenConcept:
    return drafts.change(opened, lambda spec: edits.with_term(spec, "corefs", text, certainty="low"))


def test_a_change_that_has_not_come_back_to_its_page_is_no_change_of_another_window():
    """Who moves a slider and presses the next button at once."""
    on_page = drafts.open_concept("dog")
    moved = move_slider(on_page, "puppy")
    show(moved.spec)
    token = LocalContext.request.set(page("tab"))
    assert question.require_saved(on_page) == moved.spec != on_page.spec
    move_slider(moved, "pooch")  # in another window: this page shows nothing of it
    for seen in (on_page, moved):
        with pytest.raises(CrceError, match="Another window changed these lists"):
            question.require_saved(seen)
    LocalContext.request.reset(token)


def preview(opened: OpenConcept, tab: str = "tab"):
    return gathered(curate_preview.update_preview(opened, "emoji-sd", "", ShownPreview(), page(tab)))


async def gathered(handler) -> list[str]:
    return [shown[0] async for shown in handler if shown != gr.skip()]


async def taken(broker: RequestBroker):
    return await asyncio.to_thread(broker.take, PATIENCE)


LATER = {
    "the same lists": (FROG, True),
    "another concept": (GONDOLA, False),
    "another order": (replace(FROG, corefs=FROG.corefs[::-1]), True),
    "other lists": (replace(FROG, corefs=(Term("toad", "low"),)), False),
    "another sense": (replace(FROG, sense="of a horse"), False),
}


@pytest.mark.parametrize("later", LATER)
def test_an_answer_is_shown_only_where_what_was_asked_about_is_open(broker, later):
    spec, fits = LATER[later]

    async def road() -> list[str]:
        asking = asyncio.create_task(preview(show(FROG)))
        pending = await taken(broker)
        show(spec)
        pending.reply(PICTURES)
        return await asking

    *_, last = asyncio.run(road())
    assert ("data:image/png;base64,a" in last) == fits


def test_a_late_error_is_dropped_too(broker):
    async def road() -> list[str]:
        asking = asyncio.create_task(preview(show(FROG)))
        pending = await taken(broker)
        show(GONDOLA)
        pending.reply(ErrorAnswer("the frog is too large"))
        return await asking

    assert all("too large" not in shown for shown in asyncio.run(road()))


def test_empty_lists_say_so_while_the_answer_about_others_is_still_to_come(broker):
    async def road() -> tuple[list[str], list[str]]:
        asking = asyncio.create_task(preview(show(FROG)))
        pending = await taken(broker)
        empty = await preview(show(GONDOLA))
        pending.reply(PICTURES)
        return await asking, empty

    frog, empty = asyncio.run(road())
    assert len(empty) == 1 and "Add names to erase" in empty[0]
    assert all("base64" not in shown for shown in frog)


def test_the_map_of_another_concept_goes_before_the_new_one_comes(broker):
    terms = (
        TermDistance("frog", "target", 1, 1.0, 0.0, 0.0, 0.0),
        TermDistance("toad", "coref", 1, 0.5, 0.5, 0.3, 0.4),
    )
    answer = DistancesAnswer(terms, 77, Sphere(1.0, ((0.5, 0.5),)))

    async def road() -> list[str]:
        opened = show(FROG)
        asking = asyncio.create_task(
            gathered(curate_preview.update_distances(opened, "emoji-sd", True, "dog", page("tab")))
        )
        (await taken(broker)).reply(answer)
        return await asking

    first, last = asyncio.run(road())
    assert "Measuring" in first and "<svg" not in first and "<svg" in last


def test_forty_waiting_pages_hold_up_neither_clicks_nor_the_forty_first(broker):
    """No worker answers. Gradio has forty threads for handlers."""

    async def road() -> None:
        tabs = [f"tab-{number}" for number in range(40)]
        asking = [asyncio.create_task(preview(show(FROG, tab), tab)) for tab in tabs]
        await asyncio.to_thread(until, lambda: broker.waiting() == len(worker._threads) == 32)
        # A newer question of a page that has no thread yet takes the place of the older; empty lists need none.
        silent = {pending.request.tab.removesuffix("-preview") for pending in broker._waiting.values()}
        late = next(tab for tab in tabs if tab not in silent)
        assert "Add names to erase" in (await preview(show(GONDOLA, late), late))[-1]
        shown = await asyncio.wait_for(asking[tabs.index(late)], PATIENCE)
        assert all("base64" not in each for each in shown)
        while not all(task.done() for task in asking):
            for pending in iter(broker.take, None):
                pending.reply(PICTURES)
            await asyncio.sleep(0.01)
        drawn = [task.result()[-1] for task in asking]
        assert sum("base64,a" in last for last in drawn) == 39

    asyncio.run(road())


def test_a_question_that_finds_no_thread_in_its_time_is_told(broker):
    ask = PreviewRequest("tab", "emoji-sd", FROG, ["frog"])

    @worker.waiting
    def handler(http: gr.Request):
        try:
            yield WorkerRequest(ask, timeout=0.2)
        except CrceError as error:
            yield str(error)

    async def told() -> list[str]:
        return [shown async for shown in handler(page("tab"))]

    assert "does not answer" in asyncio.run(told())[0]


def test_a_call_that_shows_nothing_leaves_the_page_as_it_is(broker):
    """Gradio would empty what a generator without a word is to fill."""

    @worker.waiting
    def handler(http: gr.Request):
        yield WorkerRequest(DistancesRequest("tab", "emoji-sd", FROG))

    async def road() -> list:
        asking = asyncio.create_task(gathered_all(handler))
        (await taken(broker)).reply(DistancesAnswer((), 77, Sphere(1.0, ())))
        return await asking

    async def gathered_all(handler) -> list:
        return [shown async for shown in handler(page("tab"))]

    assert asyncio.run(road()) == [gr.skip()]
