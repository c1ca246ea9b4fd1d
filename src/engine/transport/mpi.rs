//! The transport between MPI processes. All calls of this file come from the thread that started MPI (`MPI_THREAD_FUNNELED`).
//!
//! The raw calls are used because the safe wrappers discard every return code. They are unsafe for always the
//! same reason: the buffers must live until MPI is done with them. Here a buffer is owned by the request it belongs to
//! ([`Sending`], [`Receiving`]), and requests are only dropped when MPI reports that they are complete.
//!
//! A packet and its lists are messages of MPI's, the packet last. What is longer than the limit travels in parts: all but the last
//! carry another tag. MPI keeps the order of messages between two processes, so all that belongs together follows each other. The tag of a
//! list names the type of its elements, so that it arrives in memory that is such a list.
//!
//! This file has the calls of MPI. [`messages`] decides which requests are tested and which messages are received.

mod launcher;
mod messages;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use ::mpi::ffi;
use bytes::Bytes;

use super::{Idle, Incoming, Polling, Transport, TransportError, TransportInfo};
use crate::engine::limits;
use crate::engine::schedule::RankId;
use crate::engine::wire::{List, ListKind};

/// The longest part of a message: MPI counts in C ints, and parts stay well below their limit.
const LONGEST_PART: usize = 1 << 30;

/// What a message of MPI's carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    /// The type of the elements of a list; `None` for a packet.
    list: Option<ListKind>,
    /// Whether it is the last part, or all.
    is_last: bool,
}

impl Content {
    fn tag(self) -> c_int {
        let list = self.list.map_or(0, |list| 1 + list as c_int);
        2 * list + c_int::from(self.is_last)
    }

    fn of_tag(tag: c_int) -> Result<Content, TransportError> {
        let unknown = || TransportError(format!("a message has the unknown tag {tag}"));
        let number = usize::try_from(tag / 2).map_err(|_| unknown())?;
        let list =
            number.checked_sub(1).map(|kind| ListKind::ALL.get(kind).copied().ok_or_else(unknown)).transpose()?;
        Ok(Content { list, is_last: tag % 2 == 1 })
    }

    /// The type of the elements that are received: a packet is a list of bytes.
    fn elements(self) -> ListKind {
        self.list.unwrap_or(ListKind::U8)
    }
}

/// The memory that a send reads from.
#[derive(Clone)]
enum Sent {
    Packet(Bytes),
    List(Arc<List>),
}

/// A send that MPI may not have finished, and the memory it reads from.
struct Sending {
    request: ffi::MPI_Request,
    to: RankId,
    moves_until: Option<Instant>,
    _memory: Sent,
}

/// A receive that MPI may not have finished, and the memory it writes to.
struct Receiving {
    request: ffi::MPI_Request,
    from: RankId,
    content: Content,
    moves_until: Option<Instant>,
    memory: List,
}

/// The parts of a message that were received before its packet.
#[derive(Default)]
struct Incomplete {
    /// The first parts of a packet or a list.
    parts: Option<List>,
    lists: Vec<List>,
}

/// Messages of at least this size are moved by the library piece by piece, and only while it is called.
const LARGE: usize = 1 << 16;
/// The least rate, in bytes per second, at which a large message is expected to move. Another end that does not look for it does not
/// keep this one busy for longer.
const LEAST_RATE: f64 = 100e6;

/// Returns until when a message that begins to move now keeps the loop busy, if it is large.
fn moves_until(length: usize) -> Option<Instant> {
    (length >= LARGE).then(|| Instant::now() + Duration::from_secs_f64(length as f64 / LEAST_RATE))
}

/// An initialised MPI, from `MPI_Init_thread` to `MPI_Finalize`.
pub(crate) struct Mpi {
    rank: RankId,
    size: u32,
    threading: c_int,
    longest_part: usize,
    silence: Duration,
    sending: VecDeque<Sending>,
    /// Ranks to which messages are not waited for, and the messages on their way to them.
    abandoned: BTreeSet<RankId>,
    sending_in_vain: VecDeque<Sending>,
    /// Ranks that MPI has reported as gone, and those of them that the owner does not know of.
    gone: BTreeSet<RankId>,
    unreported: VecDeque<RankId>,
    /// The rank to probe next, once probes for messages of any rank fail.
    probed: Option<u32>,
    receiving: VecDeque<Receiving>,
    /// The number of turns since a message was complete, while some are not.
    stalled: u32,
    incomplete: BTreeMap<RankId, Incomplete>,
}

fn check(code: c_int, call: &str) -> Result<(), TransportError> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    Err(TransportError(format!("{call} failed: {} (code {code})", error_text(code))))
}

#[expect(unsafe_code, reason = "a call of MPI that fills a buffer of the documented length")]
fn error_text(code: c_int) -> String {
    let mut text = vec![0u8; ffi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut length = 0;
    // SAFETY: the buffer has the length that MPI asks for.
    let status = unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut length) };
    if status != ffi::MPI_SUCCESS as c_int {
        return "unknown error".into();
    }
    text.truncate(usize::try_from(length).unwrap_or(0));
    String::from_utf8_lossy(&text).into_owned()
}

/// The errors of starting MPI.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// MPI runs, or has run, in this process.
    #[error(
        "MPI can be started only once in a process, and {0} has started it: do everything in one launch (its pool serves any \
         number of maps, from any number of threads), or use local ranks"
    )]
    Again(&'static str),
    #[error(transparent)]
    Failed(#[from] TransportError),
}

/// Whether MPI was started: it can be started once in the life of a process.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Whether an exit of the process would leave the other ranks waiting.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// The exit code of a run that has lost ranks; negative as long as there is none.
static AFTER_LOSS: AtomicI32 = AtomicI32::new(-1);

extern "C" fn at_exit() {
    if let Ok(code) = u8::try_from(AFTER_LOSS.load(Ordering::SeqCst)) {
        launcher::end_if_it_hangs();
        Mpi::abort(code);
    }
    if RUNNING.load(Ordering::SeqCst) {
        crate::console::eprint_error(
            "the process called std::process::exit, or a library did, while the run was going on; ending all ranks",
        );
        // A launcher treats an exit with a code other than 0 and without MPI_Finalize as a failure, and ends the other ranks.
        end_process(1);
    }
}

/// Ends this process at once, without exit handlers: those of MPI may wait for other ranks.
#[expect(unsafe_code, reason = "_exit is the only way out that runs no exit handlers")]
fn end_process(code: u8) -> ! {
    // SAFETY: it ends the process without reading any of its state.
    unsafe { libc::_exit(c_int::from(code)) }
}

impl Mpi {
    /// Starts MPI, once in the life of a process. A rank that is silent for `silence` is taken for dead.
    #[expect(unsafe_code, reason = "calls of MPI with pointers to locals")]
    pub(crate) fn start(silence: Duration) -> Result<Self, StartError> {
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(StartError::Again("another launch"));
        }
        let (mut initialised, mut threading, mut rank, mut size) = (0, 0, 0, 0);
        // SAFETY: all pointers are to live locals, or null where MPI allows it.
        unsafe {
            check(ffi::MPI_Initialized(&mut initialised), "MPI_Initialized")?;
            if initialised != 0 {
                return Err(StartError::Again("the program itself"));
            }
            let wanted = ffi::RSMPI_THREAD_FUNNELED;
            let none = std::ptr::null_mut();
            check(ffi::MPI_Init_thread(none, std::ptr::null_mut(), wanted, &mut threading), "MPI_Init_thread")?;
            check(
                ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN),
                "MPI_Comm_set_errhandler",
            )?;
            check(ffi::MPI_Comm_rank(ffi::RSMPI_COMM_WORLD, &mut rank), "MPI_Comm_rank")?;
            check(ffi::MPI_Comm_size(ffi::RSMPI_COMM_WORLD, &mut size), "MPI_Comm_size")?;
            if threading < wanted {
                return Err(TransportError(
                    "this MPI library does not support threads (MPI_THREAD_FUNNELED), which rankpool needs".into(),
                )
                .into());
            }
            RUNNING.store(true, Ordering::SeqCst);
            libc::atexit(at_exit);
        }
        // For tests, which do not send gigabytes.
        let longest_part = std::env::var("RANKPOOL_MPI_LONGEST_PART").ok().and_then(|part| part.parse().ok());
        Ok(Mpi {
            rank: RankId(rank as u32),
            size: size as u32,
            threading,
            longest_part: longest_part.unwrap_or(LONGEST_PART).clamp(1, LONGEST_PART),
            silence,
            sending: VecDeque::new(),
            abandoned: BTreeSet::new(),
            sending_in_vain: VecDeque::new(),
            gone: BTreeSet::new(),
            unreported: VecDeque::new(),
            probed: None,
            receiving: VecDeque::new(),
            stalled: 0,
            incomplete: BTreeMap::new(),
        })
    }

    pub(crate) fn rank(&self) -> RankId {
        self.rank
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Returns the thread level that MPI has granted, by its name in the standard.
    fn threading(&self) -> &'static str {
        #[expect(unsafe_code, reason = "reads of constants that the MPI library defines")]
        // SAFETY: they are initialised when the program is loaded and never written to.
        let (serialized, multiple) = unsafe { (ffi::RSMPI_THREAD_SERIALIZED, ffi::RSMPI_THREAD_MULTIPLE) };
        match self.threading {
            level if level == multiple => "MPI_THREAD_MULTIPLE",
            level if level == serialized => "MPI_THREAD_SERIALIZED",
            _ => "MPI_THREAD_FUNNELED",
        }
    }

    /// Returns the name and version of the MPI library.
    #[expect(unsafe_code, reason = "a call of MPI that fills a buffer of the documented length")]
    fn library() -> String {
        let mut length = 0;
        // SAFETY: the buffer has the length that MPI asks for.
        let mut text = unsafe { vec![0u8; ffi::RSMPI_MAX_LIBRARY_VERSION_STRING as usize + 1] };
        // SAFETY: as above.
        let status = unsafe { ffi::MPI_Get_library_version(text.as_mut_ptr().cast(), &mut length) };
        if status != ffi::MPI_SUCCESS as c_int {
            return "unknown MPI".into();
        }
        text.truncate(usize::try_from(length).unwrap_or(0));
        let text = String::from_utf8_lossy(&text);
        // The first line up to the first comma: Open MPI adds build details after it.
        let name = text.lines().next().unwrap_or_default().split(',').next().unwrap_or_default();
        name.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Finalizes MPI. All ranks must call this, after all messages were received. If a rank does not within
    /// [`MPI_FINALIZE`](limits::MPI_FINALIZE), this process ends with the exit code `code`.
    #[expect(unsafe_code, reason = "a call of MPI without pointers")]
    pub(crate) fn finish(self, code: u8) -> Result<(), TransportError> {
        RUNNING.store(false, Ordering::SeqCst);
        let (_ended, end) = channel::<()>();
        let watch = move || {
            if end.recv_timeout(limits::MPI_FINALIZE) == Err(RecvTimeoutError::Timeout) {
                let seconds = limits::MPI_FINALIZE.as_secs();
                crate::console::eprint_error(format_args!(
                    "a rank has not left the run within {seconds} s; not waiting for it"
                ));
                end_process(code);
            }
        };
        // If the thread cannot be started, MPI_Finalize may wait forever; it is called all the same.
        let _ = thread::Builder::new().name("rankpool end".into()).spawn(watch);
        // SAFETY: it takes no pointers; buffers of requests that are still open are never freed, see `drop`.
        check(unsafe { ffi::MPI_Finalize() }, "MPI_Finalize")
    }

    /// Ends rank 0's part in a run that has lost ranks: `MPI_Finalize` would wait for them forever. The other ranks wait until
    /// `MPI_Abort` ends them, which is called when this process exits, so that the launcher gets the run's exit code.
    pub(crate) fn finish_after_loss(self, code: u8) {
        RUNNING.store(false, Ordering::SeqCst);
        AFTER_LOSS.store(i32::from(code), Ordering::SeqCst);
    }

    /// Ends this process after a run that has lost ranks. Rank 0's `MPI_Abort` does it, unless the launcher lets the others live;
    /// a process that ends before might end those of its launcher that has no such option.
    pub(crate) fn leave(mut self) -> ! {
        RUNNING.store(false, Ordering::SeqCst);
        let deadline = Instant::now() + limits::MPI_FINALIZE;
        let mut idle = Idle::new();
        while !launcher::lets_others_live() && Instant::now() < deadline && self.receive().is_ok() {
            idle.wait(Polling::Sometimes);
        }
        end_process(0)
    }

    /// Ends this process alone, whatever the others do.
    pub(crate) fn end_alone(code: u8) -> ! {
        RUNNING.store(false, Ordering::SeqCst);
        end_process(code)
    }

    /// Ends all ranks at once with the exit code `code`.
    #[expect(unsafe_code, reason = "a call of MPI without pointers")]
    pub(crate) fn abort(code: u8) -> ! {
        crate::console::wait_until_read();
        RUNNING.store(false, Ordering::SeqCst);
        let watch = move || {
            thread::sleep(limits::MPI_ABORT);
            end_process(code);
        };
        // MPI_Abort may wait for a rank that is dead.
        let _ = thread::Builder::new().name("rankpool abort".into()).spawn(watch);
        // SAFETY: it takes no pointers and does not come back.
        unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, c_int::from(code)) };
        end_process(code)
    }

    /// Starts to send these bytes of a packet or a list.
    #[expect(unsafe_code, reason = "the buffer is kept with the request until MPI is done with it")]
    fn send_part(
        &mut self,
        to: RankId,
        content: Content,
        memory: Sent,
        part: Range<usize>,
    ) -> Result<(), TransportError> {
        let (address, length) = match &memory {
            Sent::Packet(bytes) => (bytes.as_ptr(), bytes.len()),
            Sent::List(list) => (list.address(), list.bytes()),
        };
        assert!(part.start <= part.end && part.end <= length, "a part of what is sent");
        let mut request = MaybeUninit::uninit();
        let count = c_int::try_from(part.len()).expect("parts are at most 1 GiB long");
        // SAFETY: the part was checked. The bytes do not move (they are on the heap or static) and are kept in `sending` until the
        // request is complete; numbers have no bytes between them. MPI does not write through the pointer of a send.
        let code = unsafe {
            ffi::MPI_Isend(
                address.add(part.start).cast_mut().cast::<c_void>(),
                count,
                ffi::RSMPI_UINT8_T,
                to.0 as c_int,
                content.tag(),
                ffi::RSMPI_COMM_WORLD,
                request.as_mut_ptr(),
            )
        };
        check(code, "MPI_Isend")?;
        // SAFETY: the call succeeded, so the request was written.
        let request = unsafe { request.assume_init() };
        let queue = if self.abandoned.contains(&to) { &mut self.sending_in_vain } else { &mut self.sending };
        queue.push_back(Sending { request, to, moves_until: moves_until(part.len()), _memory: memory });
        Ok(())
    }

    /// Starts to receive a message that has arrived from one process, or from any if `source` is `None`; returns false if there is
    /// none.
    #[expect(unsafe_code, reason = "the buffer is kept with the request until MPI is done with it")]
    fn begin_receive_from(&mut self, source: Option<RankId>) -> Result<bool, TransportError> {
        let (mut there, mut count) = (0, 0);
        let mut status = MaybeUninit::<ffi::MPI_Status>::uninit();
        // A probe that finds no message advances the library's own work, and only the next probe sees the result.
        for _ in 0..2 {
            // SAFETY: pointers to live locals, and constants that the MPI library defines.
            let code = unsafe {
                ffi::MPI_Iprobe(
                    source.map_or(ffi::RSMPI_ANY_SOURCE, |rank| rank.0 as c_int),
                    ffi::RSMPI_ANY_TAG,
                    ffi::RSMPI_COMM_WORLD,
                    &mut there,
                    status.as_mut_ptr(),
                )
            };
            check(code, "MPI_Iprobe")?;
            if there != 0 {
                break;
            }
        }
        if there == 0 {
            return Ok(false);
        }
        // SAFETY: the probe found a message, so the status was written.
        let status = unsafe { status.assume_init() };
        // SAFETY: pointers to live locals.
        check(unsafe { ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut count) }, "MPI_Get_count")?;
        let length = usize::try_from(count).map_err(|_| TransportError("MPI_Get_count gave no count".into()))?;
        let content = Content::of_tag(status.MPI_TAG)?;
        let kind = content.elements();
        if length % kind.size() > 0 {
            return Err(TransportError("a list ends inside an element".into()));
        }
        let elements = length / kind.size();
        let mut memory = kind.with_capacity(elements);
        let mut request = MaybeUninit::uninit();
        // SAFETY: the buffer has room for `count` bytes and moves into `receiving` (its heap part stays where it is) until the
        // request is complete.
        let code = unsafe {
            ffi::MPI_Irecv(
                memory.address_mut().cast::<c_void>(),
                count,
                ffi::RSMPI_UINT8_T,
                status.MPI_SOURCE,
                status.MPI_TAG,
                ffi::RSMPI_COMM_WORLD,
                request.as_mut_ptr(),
            )
        };
        check(code, "MPI_Irecv")?;
        // SAFETY: the call succeeded, so the request was written; MPI fills all `length` bytes, which a probe counted, before
        // the request is complete, and they are not read earlier. All bytes are valid numbers.
        let request = unsafe {
            memory.set_len(elements);
            request.assume_init()
        };
        let from = RankId(status.MPI_SOURCE as u32);
        let moves_until = moves_until(length);
        self.receiving.push_back(Receiving { request, from, content, moves_until, memory });
        Ok(true)
    }
}

/// Advances a request and returns whether MPI has completed it.
#[expect(unsafe_code, reason = "a call of MPI with a request that it made")]
fn test_request(request: &mut ffi::MPI_Request) -> Result<bool, TransportError> {
    let mut complete = 0;
    // SAFETY: the request came from MPI_Isend or MPI_Irecv.
    check(unsafe { ffi::MPI_Test(request, &mut complete, ffi::RSMPI_STATUS_IGNORE) }, "MPI_Test")?;
    Ok(complete != 0)
}
