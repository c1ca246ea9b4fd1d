//! One process from its start to its end, on the side of the rank.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::io::Errno;

use super::program::{ProcessEnd, Program, SpawnError, failure, resolve};
use super::spawn::protocol::{self, SignalOrder, SpawnReply, SpawnRequest};
use super::spawn::{Channel, Closed};

/// Most attempts to start a process while the helper is killed again and again.
const MOST_HELPERS: u32 = 10;

/// A process in a group of its own. If it is dropped before its end, the group is killed.
#[derive(Debug)]
pub(crate) struct Process {
    /// `None` after its end.
    channel: Option<Channel>,
    /// The program's name and folder, for the message of a failed start.
    program: Program,
    /// The file that is run.
    file: String,
}

impl Process {
    /// Starts a program with these ends of its standard streams, `/dev/null` for those that are `None`. Returns before it runs: a
    /// failed start may be reported by [`ended`](Self::ended).
    pub(crate) fn start(program: &Program, streams: [Option<BorrowedFd<'_>>; 3]) -> Result<Self, SpawnError> {
        let file = resolve::file_of(&program.name).map_err(SpawnError::NotStarted)?;
        failure::refuse(program).map_err(SpawnError::NotStarted)?;
        for _ in 0..MOST_HELPERS {
            let mut channel = Channel::take()?;
            let request = SpawnRequest {
                number: channel.requests + 1,
                file: Cow::Borrowed(&file),
                program: Cow::Borrowed(program),
                streams: streams.map(|stream| stream.is_some()),
            };
            if protocol::write_frame(&request, &mut channel.outbox).is_none() {
                channel.give_back();
                return Err(SpawnError::NotStarted(failure::explain(Errno::TOOBIG.raw_os_error(), program, &file)));
            }
            channel.requests += 1;
            let ends: Vec<_> = streams.into_iter().flatten().collect();
            let sent = protocol::send(channel.socket.as_fd(), &channel.outbox, &ends);
            if channel.outbox.capacity() > 1 << 18 {
                channel.outbox = Vec::new();
            }
            match sent {
                Ok(()) => {
                    let program =
                        Program { name: program.name.clone(), cwd: program.cwd.clone(), ..Program::default() };
                    return Ok(Process { channel: Some(channel), program, file });
                }
                Err(error) if protocol::is_closed(&error) => match channel.closed()? {
                    Closed::Refused => return Err(SpawnError::no_room()),
                    // It was killed, and has started nothing of this request.
                    Closed::Killed => {}
                },
                Err(error) => return Err(SpawnError::resources(error)),
            }
        }
        Err(SpawnError::HelperGone("every new one was killed at once".into()))
    }

    /// Signals the process and its group. Nothing happens if it has ended.
    pub(crate) fn signal(&self, order: SignalOrder) -> Result<(), SpawnError> {
        self.channel.as_ref().map_or(Ok(()), |channel| channel.signal(order))
    }

    /// Returns a descriptor that is readable when the process has ended; `None` after [`ended`](Self::ended) has returned.
    pub(crate) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(|channel| channel.socket.as_fd())
    }

    /// Waits for the end and returns how the process ended.
    pub(crate) fn ended(&mut self) -> Result<ProcessEnd, SpawnError> {
        let Some(mut channel) = self.channel.take() else {
            return Err(SpawnError::NotStarted("its end was reported before".into()));
        };
        let answer = channel.inbox.frame(&channel.socket);
        match answer {
            Ok(Some(SpawnReply::Ended { status, user, system, max_rss_kib })) => {
                channel.give_back();
                Ok(ProcessEnd {
                    status: ExitStatus::from_raw(status),
                    user: Duration::from_micros(user),
                    system: Duration::from_micros(system),
                    max_rss_kib,
                })
            }
            Ok(Some(SpawnReply::NoThread)) => {
                Channel::end_unused();
                Err(SpawnError::no_room())
            }
            Ok(Some(SpawnReply::Failed { errno })) => {
                let is_scarce = failure::scarce(&io::Error::from_raw_os_error(errno)).is_some();
                if is_scarce {
                    Channel::end_unused();
                } else {
                    resolve::forget(&self.program.name);
                }
                channel.give_back();
                let why = failure::explain(errno, &self.program, &self.file);
                Err(if is_scarce { SpawnError::Scarce(why) } else { SpawnError::NotStarted(why) })
            }
            Ok(None) | Err(_) => {
                // The error says whether the other side has ended with unread data.
                let is_unread = answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
                Err(match (channel.closed()?, is_unread) {
                    (Closed::Killed, true) => SpawnError::Unread,
                    (Closed::Killed, false) => SpawnError::HelperKilled,
                    (Closed::Refused, true) => SpawnError::no_room(),
                    (Closed::Refused, false) => SpawnError::NotStarted("the spawn helper closed its channel".into()),
                })
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The channel is still busy and is dropped, too.
        let _ = self.signal(SignalOrder::Kill);
    }
}
