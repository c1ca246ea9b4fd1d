import os, socket, struct, pickle, time, mmap
H = struct.Struct("<BBBBIQQQdQ")
def main():
    s = socket.socket(fileno=os.dup(0))
    m = os.memfd_create("n"); os.ftruncate(m, 4096); mm = mmap.mmap(m, 4096); note = memoryview(mm).cast("Q")
    socket.send_fds(s, [H.pack(32, 2, 0, 0, 0, 0, 0, 0, 0.0, 4096)], [m])
    f = s.makefile("rb"); fns = {}
    while True:
        h = f.read(48)
        if len(h) < 48: return
        k, fl, st, r, c, i, fn, se, sec, n = H.unpack(h)
        b = f.read(n)
        if k == 2: fns[i] = pickle.loads(b[c:])
        if k == 3:
            note[0] = i
            t = time.perf_counter()
            a, kw = pickle.loads(b)
            try: v = pickle.dumps(fns[fn](*a, **kw)); st = 0
            except Exception as e: v = pickle.dumps(e); st = 1
            s.sendall(H.pack(17, 0, st, 0, c, i, 0, 0, time.perf_counter() - t, len(v)) + v)
