"""The frames of both sockets: script and rank 0, rank and worker.

A frame is a header of 48 bytes and a body. A body of 1 MiB or more travels in a memfd beside the
stream, so that it is copied once by the sender and not at all by the receiver (see `_memfds`).
"""

# The modules in C, where the ones around them cost a worker some milliseconds.
import _socket as socket
import os
from _struct import Struct, pack, unpack
from collections import deque
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

HEADER = Struct("<BBBBIQQQdQ")
HEADER_LENGTH = HEADER.size

# The kinds of frames.
SESSION = 1
FUNCTION = 2
CALL = 3
FORGET = 4
END_SESSION = 5
RECALL = 6
WELCOME = 16
RESULT = 17
WINDOW = 18
ENDING = 19
READY = 32
BROKEN = 33
RECALLED = 34

# The flags of a frame.
BUFFERS = 1  # the payload has out-of-band buffers
MEMFD = 2  # the body travels in a memfd
CHUNK = 4  # the payload holds the arguments of several jobs
USES = 8  # the payload begins with the numbers of the shared objects that it refers to

# The statuses of a result.
OK = 0
EXCEPTION = 1
WORKER_DIED = 2
TIME_LIMIT = 3
RANK_LOST = 4
CANCELLED = 5
INITIALIZER_FAILED = 6
NO_WORKER = 7

MEMFD_FROM = 1 << 20
_READ_SIZE = 1 << 18
_MOST_DESCRIPTORS = 16
_ANCILLARY = socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4)
_LONGEST_WRITE = 1 << 20


def pack_frame(kind, flags, status, retries, count, number, function, session, seconds, parts, length):
    """A frame as pieces for `FrameWriter`: one `bytes`, or a header and the memfd of its body.

    `parts` are bytes, or the `Memfd` that holds them.
    """
    if length >= MEMFD_FROM:
        fd = _memfd(parts) if type(parts) in (tuple, list) else parts
        if fd is not None:
            header = HEADER.pack(
                kind, flags | MEMFD, status, retries, count, number, function, session, seconds, length
            )
            return (header, fd)
    header = HEADER.pack(kind, flags, status, retries, count, number, function, session, seconds, length)
    return b"".join([header, *parts])


def _memfd(parts):
    """A memfd with these bytes, or None if there can be none (then they go through the stream)."""
    try:
        fd = os.memfd_create("rankpool", os.MFD_CLOEXEC)
    except (OSError, AttributeError):
        return None
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            while len(view):
                view = view[os.write(fd, view) :]
        return fd
    except OSError:
        os.close(fd)
        return None


class FrameWriter:
    """Sends frames in few system calls: what waits together is written together."""

    def __init__(self, sock):
        self._socket = sock

    def send(self, frames, block):
        """Send `frames`, a list that is emptied from the front. Unless `block`, what would have to wait stays in it.

        An interrupt (`KeyboardInterrupt`) between two steps loses no byte and sends none twice: `frames`
        says at each moment what has not been sent.
        """
        flags = 0 if block else socket.MSG_DONTWAIT
        while frames:
            first = frames[0]
            if type(first) is tuple:
                if not self._send_descriptor(frames, first, flags):
                    return
                continue
            count = 1
            length = len(first)
            while count < len(frames) and length < _LONGEST_WRITE and type(frames[count]) is not tuple:
                length += len(frames[count])
                count += 1
            frames[:count] = [b"".join(frames[:count]) if count > 1 else first]
            if not self._send_bytes(frames, flags):
                return

    def _send_bytes(self, frames, flags):
        """Send the first of `frames`; False if it would have to wait."""
        # One call in C sends and notes how much was sent: an interrupt comes before it or after it. No
        # function is called while that is entered in `frames`.
        sent = []
        length = len(frames[0])
        try:
            sent.extend(map(self._socket.send, (frames[0],), (flags,)))
        except BlockingIOError:
            return False
        finally:
            if sent:
                if sent[0] == length:
                    del frames[0]
                else:
                    frames[0] = frames[0][sent[0] :]
        return True

    def _send_descriptor(self, frames, first, flags):
        """Send a header with its memfd; False if it would have to wait."""
        header, memfd = first
        fd = memfd if type(memfd) is int else memfd.fd
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, pack("i", fd))]
        sent = []
        try:
            sent.extend(map(self._socket.sendmsg, ([header],), (ancillary,), (flags,)))
        except BlockingIOError:
            return False
        finally:
            if sent:
                frames[:1] = [header[sent[0] :]] if sent[0] < len(header) else []
                if type(memfd) is int:
                    os.close(fd)
        return True


class FrameReader:
    """Reads frames with one large buffer that is used again and again."""

    def __init__(self, sock):
        self._socket = sock
        # Memory of its own, of which only what is used becomes resident.
        self._buffer = mmap(-1, _READ_SIZE, MAP_PRIVATE | MAP_ANONYMOUS)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._descriptors = deque()

    def read(self):
        """Wait for bytes. Returns the complete frames as `(header, body)`, None when the stream is at its end.

        A body is valid until the next call only, unless its frame has the flag BUFFERS: then the body is
        memory of its own.
        """
        start, end = self._start, self._end
        if start == end:
            start = end = 0
        elif start:
            rest = end - start
            self._buffer[:rest] = self._buffer[start:end]
            start, end = 0, rest
        count = self._receive(self._view[end:])
        if not count:
            return None
        end += count
        view, unpack = self._view, HEADER.unpack_from
        frames = []
        while end - start >= HEADER_LENGTH:
            header = unpack(view, start)
            length = header[9]
            if header[1] & MEMFD:
                # A function is shared by workers, and the arguments of a call that may be run again must stay as they are.
                body = self._mapped(length, header[0] == FUNCTION or (header[0] == CALL and header[3] > 0))
                start += HEADER_LENGTH
            elif start + HEADER_LENGTH + length <= end:
                start += HEADER_LENGTH
                body = view[start : start + length]
                start += length
                if header[1] & BUFFERS:
                    body = memoryview(bytearray(body))
            elif HEADER_LENGTH + length > _READ_SIZE:
                body = self._read_large(view[start + HEADER_LENGTH : end], length)
                start = end
                if body is None:
                    return None
            else:
                break
            frames.append((header, body))
        self._start, self._end = start, end
        return frames

    def _read_large(self, begun, length):
        """The body of a frame that is larger than the buffer, of which `begun` has been read."""
        body = memoryview(bytearray(length))
        have = len(begun)
        body[:have] = begun
        while have < length:
            count = self._receive(body[have:])
            if not count:
                return None
            have += count
        return body

    def _receive(self, view):
        try:
            count, ancillary, _, _ = self._socket.recvmsg_into([view], _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return 0
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._descriptors.extend(unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4]))
        return count

    def _mapped(self, length, is_private):
        """The body that came in a memfd, as writable memory."""
        from ._memfds import mapped

        fd = self._descriptors.popleft()
        try:
            return mapped(fd, length, is_private)
        finally:
            os.close(fd)
